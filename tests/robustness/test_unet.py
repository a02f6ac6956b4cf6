"""U-Net and Spleeter: sizes, any length, borders, levels, patches, bad settings."""

import pytest
import torch
import torch.nn.functional as F

from sepbook.engine.layers import ConvTranspose2d
from sepbook.mixtures import example_song
from sepbook.models.unet import ABOVE, SPLEETER, Spleeter, UNet
from sepbook.separate import separate

SMALL = {"widths": (3, 4, 5), "n_fft": 256, "hop": 64, "n_bins": 64, "patch": None}


def unet(**how) -> UNet:
    torch.manual_seed(0)
    return UNet(widths=(3, 4, 5), **how).eval()


def spleeter(**how) -> Spleeter:
    torch.manual_seed(0)
    return Spleeter(**SMALL | how).eval()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def run(network, mix: torch.Tensor) -> torch.Tensor:
    return network(mix)


def test_parameter_counts():
    assert UNet(sources=("vocals",)).n_params == 9_823_313
    with torch.device("meta"):
        assert UNet().n_params == 2 * 9_823_313
        for how in SPLEETER.values():
            assert Spleeter(**how).n_params == len(how["sources"]) * 9_823_749


@pytest.mark.parametrize("n_in, n_out, size", [(1, 1, (2, 2)), (1, 3, (5, 8)), (32, 1, (32, 16))])
def test_phases_are_the_transposed_convolution(n_in, n_out, size):
    layer = torch.nn.ConvTranspose2d(n_in, n_out, 5, 2, padding=2, output_padding=1).double()
    fast = ConvTranspose2d(n_in, n_out, 5, 2, padding=2, output_padding=1).double()
    fast.load_state_dict(layer.state_dict())
    x = noise(2, n_in, *size).double()
    torch.testing.assert_close(fast(x), layer(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", [unet(), spleeter(), spleeter(patch=16)])
def test_without_a_mask_the_mixture_comes_back_to_its_borders(network):
    """A mask of ones: nothing clicks or fades, first and last sample included."""
    for length in (1, 2, 255, 256, 257, 5001):
        mix = noise(1, network.channels, length)
        spec = network.spectrum(mix)
        torch.testing.assert_close(network.wave(spec, length), mix, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make", [unet, spleeter])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 4097])
def test_any_length(make, length):
    network = make()
    est = run(network, noise(2, network.channels, length))
    assert est.shape == (2, len(network.sources), network.channels, length)
    assert est.isfinite().all()


@pytest.mark.parametrize("how", [{}, {"output": "magnitude"}, {"skips": False}, {"patch": 16}])
def test_unet_does_not_care_for_the_level(how):
    network, mix = unet(**how), noise(1, 1, 9000)
    got, want = run(network, 1e-3 * mix), 1e-3 * run(network, mix)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * want.abs().max().item())


@pytest.mark.parametrize("softmax", [False, True])
def test_shares_of_spleeter_add_up_to_the_mixture_below_the_edge(softmax):
    network, mix = spleeter(softmax=softmax, above="average"), noise(1, 2, 5000)
    masks = network.masks(network.look(network.spectrum(mix).abs())[0])
    torch.testing.assert_close(masks.sum(1), torch.ones_like(masks[:, 0]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(run(network, mix).sum(1), mix, rtol=1e-3, atol=1e-3)


def test_nothing_above_the_edge_unless_asked_for():
    mix = noise(1, 2, 8192)
    energy = {}
    for above in ABOVE:
        est = run(spleeter(above=above), mix)
        spec = torch.fft.rfft(est)[..., 3000:].abs().square().sum()
        energy[above] = float(spec / torch.fft.rfft(mix)[..., 3000:].abs().square().sum())
    assert energy["zeros"] < 1e-3 < 0.05 < min(energy["average"], energy["copy"])


def test_one_source_alone_has_its_own_mask():
    network, mix = spleeter(sources=("vocals",)), noise(1, 2, 3000)
    mask = network.masks(network.look(network.spectrum(mix).abs())[0])
    assert mask.min() > 0 and mask.max() < 1 and mask.std() > 0


def test_patches_meet_without_a_click():
    """Steps from sample to sample are no larger where two patches meet than elsewhere."""
    song = example_song().mix[None, :, :60000]
    network = spleeter(patch=16, above="copy")
    steps = run(network, song)[0].diff().abs().amax((0, 1))
    seams = [k * 16 * 64 - 256 for k in range(1, 58)]
    at = torch.cat([steps[s - 2 : s + 3] for s in seams if 2 < s < 59990])
    assert at.max() <= steps.max() and at.mean() < 1.2 * steps.mean()


def test_a_batch_is_its_items():
    for network in (unet(patch=16), spleeter(patch=16)):
        mix = noise(3, network.channels, 4000)
        each = torch.cat([run(network, item[None]) for item in mix])
        torch.testing.assert_close(run(network, mix), each, rtol=1e-3, atol=1e-5)


def test_silent_training_items_are_harmless():
    for network in (unet().train(), spleeter().train()):
        mix = torch.zeros(2, network.channels, 4000)
        src = torch.zeros(2, len(network.sources), network.channels, 4000)
        loss = network.loss(mix, src)
        loss.backward()
        found = [p.grad for p in network.parameters() if p.grad is not None]
        assert loss == 0 and all(g.isfinite().all() for g in found)


def test_the_loss_is_zero_for_what_the_masks_give():
    network, mix = spleeter(sources=("a",)), noise(1, 2, 4000)
    x = network.look(network.spectrum(mix).abs())[0]
    want = (network.volumes(x)[:, 0] - x).abs().mean()
    torch.testing.assert_close(network.loss(mix, mix[:, None]), want, rtol=1e-5, atol=1e-7)


def test_double_precision():
    for network in (unet().double(), spleeter().double()):
        mix = noise(1, network.channels, 3000).double()
        est = run(network, mix)
        assert est.dtype == torch.float64
        single = run(network.float(), mix.float()).double()
        torch.testing.assert_close(est, single, rtol=1e-3, atol=1e-4)


def test_through_separate_at_full_rate_in_stereo():
    song = example_song()
    mix = song.mix[:, :66150]
    for network in (unet(), spleeter(n_fft=4096, hop=1024, n_bins=1024)):
        est = separate(network, mix, 44100, progress=False)
        assert est.shape == (len(network.sources), 2, 66150) and est.isfinite().all()


@pytest.mark.parametrize(
    ("cls", "how", "word"),
    [
        (UNet, {"n_bins": 500}, "multiples of 64"),
        (UNet, {"n_bins": 576}, "at most 513"),
        (UNet, {"patch": 100}, "multiples of 64"),
        (UNet, {"hop": 900}, "hop"),
        (UNet, {"sources": ()}, "sources"),
        (UNet, {"output": "phase"}, "output"),
        (Spleeter, {"above": "noise"}, "above"),
        (Spleeter, {"channels": 0}, "channels"),
    ],
)
def test_settings_that_make_no_network(cls, how, word):
    with pytest.raises(ValueError, match=word) as error:
        cls(**how)
    assert "\n" not in str(error.value)


def test_skips_carry_the_detail():
    """Moving one cell of the picture by one moves the mask near it, only with skips."""
    torch.manual_seed(0)
    x = torch.rand(1, 1, 64, 64)
    y = x.clone()
    y[0, 0, 32, 32] += 0.5
    with torch.no_grad():
        change = {s: unet(skips=s).towers[0] for s in (True, False)}
        near = {s: (net(x) - net(y)).abs()[0, 0] for s, net in change.items()}
    share = {s: float(d[29:36, 29:36].sum() / d.sum()) for s, d in near.items()}
    assert share[True] > share[False]


def test_layout_in_memory_changes_nothing():
    network, mix = unet(), noise(1, 1, 6000)
    other = unet().to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(run(network, mix), run(other, mix), rtol=1e-4, atol=1e-6)
    assert F.mse_loss(run(network, mix), run(other, mix)) < 1e-10
