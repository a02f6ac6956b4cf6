"""Wave-U-Net: sizes, borders, sums, gradients, bad settings, and an independent computation."""

import pytest
import torch
import torch.nn.functional as F

from sepbook.engine.decimation import doubled, leaky_conv, leaky_conv_up
from sepbook.models.wave_unet import SIZES, WaveUNet
from sepbook.separate import separate

SMALL = {"levels": 3, "filters": 4, "kernel": 5, "channels": 1, "sample_rate": 8000}
VARIANTS = [
    {},
    {"context": False},
    {"upsampling": "learned"},
    {"upsampling": "learned", "context": False},
    {"output": "direct", "activation": "linear"},
    {"gated": True, "lstm": 1},
]
variants = pytest.mark.parametrize("how", VARIANTS, ids=lambda how: ",".join(how) or "usual")


def small(**how) -> WaveUNet:
    """A small network with weights of its own everywhere, also in the learned doubling."""
    torch.manual_seed(0)
    network = WaveUNet(**SMALL | how).double().eval()
    for level in network.up:
        if level.share is not None:
            torch.nn.init.normal_(level.share)
    return network


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(network, mix) -> torch.Tensor:
    with torch.no_grad():
        return network(mix)


def test_published_sizes():
    with torch.device("meta"):
        count = lambda **how: WaveUNet(**how).n_params
        assert count(sources=["vocals"], channels=1, output="direct", context=False) == 10_263_002
        sizes = {name: count(**SIZES[name]) for name in SIZES}
    assert sizes["M2"] == sizes["M3"] == 10_263_002 and sizes["M1"] == 10_263_002 + 26
    assert sizes["M4"] == count() == 10_263_390 and sizes["M6"] == 10_263_498
    assert sizes["M5"] == 10_263_390 + 2_160


def test_published_excerpt():
    with torch.device("meta"):
        network = WaveUNet()
    assert network.sizes(16_384) == (147_443, 16_389)


@pytest.mark.parametrize("kernels", [(1, 1), (3, 1), (5, 3), (15, 5), (9, 7)])
@pytest.mark.parametrize("levels", [1, 4])
def test_sizes_are_what_happens_and_the_smallest(kernels, levels):
    network = WaveUNet(
        channels=1, levels=levels, filters=1, kernel=kernels[0], kernel_up=kernels[1]
    )
    for n in (1, 2, 16, 100):
        into, out = network.sizes(n)
        assert out >= n and network.valid(torch.zeros(1, 1, into)).shape[-1] == out
        less = network.lengths(0)[0] + 2**levels * ((into - network.lengths(0)[0]) // 2**levels - 1)
        assert network.fitting(less)[1] < n


@variants
@pytest.mark.parametrize("length", [1, 7, 8, 9, 100, 777])
def test_any_length_adds_up(how, length):
    network, mix = small(**how), noise(2, 1, length)
    est = run(network, mix)
    assert est.shape == (2, 2, 1, length) and est.isfinite().all()
    if network.output == "difference":
        torch.testing.assert_close(est.sum(1), mix)


@variants
def test_items_of_a_batch_are_alone(how):
    network, mix = small(**how), noise(3, 1, 500)
    torch.testing.assert_close(run(network, mix), torch.cat([run(network, m[None]) for m in mix]))


def by_hand(network: WaveUNet, mix: torch.Tensor) -> torch.Tensor:
    """The paper's graph, channels first; without context, signals end in zeros at every level."""
    valid, skips = network.context, []

    def conv(block, x):
        edge = 0 if valid else block.conv.kernel_size[0] // 2
        return F.leaky_relu(F.conv1d(x, block.conv.weight, block.conv.bias, padding=edge), 0.2)

    x = mix
    for block in network.down:
        skips.append(conv(block, x))
        x = skips[-1][..., ::2]
    x = conv(network.bottom, x)
    for block in network.up:
        share = 0.5 if block.share is None else block.share.sigmoid()[:, None]
        right = F.pad(x, (1, 1))
        between = share * right[..., :-1] + (1 - share) * right[..., 1:]  # from -1/2 on
        half, skip, weight = block.conv.kernel_size[0] // 2, skips.pop(), block.conv.weight
        n_low = x.shape[1]
        if valid:
            x = torch.stack([x, between[..., 1:]], -1).flatten(-2)[..., :-1]
            spare = (skip.shape[-1] - x.shape[-1]) // 2
            x = conv(block, torch.cat([x, skip[..., spare : spare + x.shape[-1]]], 1))
        else:
            long = torch.stack([between[..., :-1], x], -1).flatten(-2)
            long = torch.cat([long, between[..., -1:]], -1)  # from -1 to 2 n - 1
            low = F.conv1d(F.pad(long, (half - 1, half)), weight[:, :n_low])
            y = low + F.conv1d(skip, weight[:, n_low:], block.conv.bias, padding=half)
            x = F.leaky_relu(y, 0.2)
    spare = (mix.shape[-1] - x.shape[-1]) // 2
    mix = mix[..., spare : spare + x.shape[-1]]
    first = (network.out(torch.cat([x, mix], 1).mT).mT).tanh()
    return torch.stack([first, mix - first], 1)


@pytest.mark.parametrize("kernel_up", [3, 5])
@pytest.mark.parametrize("upsampling", ["linear", "learned"])
@pytest.mark.parametrize("context", [True, False])
def test_equal_to_the_graph_by_hand(context, upsampling, kernel_up):
    network = small(context=context, upsampling=upsampling, kernel_up=kernel_up)
    n = network.sizes(50)[0] if context else 96
    mix = noise(2, 1, n)
    got = network.valid(mix) if context else network(mix)
    torch.testing.assert_close(got, by_hand(network, mix), rtol=1e-9, atol=1e-12)


def test_doubled_is_doubling_and_convolving():
    x, weight, share = noise(1, 2, 20), noise(3, 2, 5, seed=1), torch.rand(2, 1).double()
    pairs = [x, torch.cat([share * x[..., :-1] + (1 - share) * x[..., 1:], x[..., -1:]], -1)]
    want = F.conv1d(torch.stack(pairs, -1).flatten(-2)[..., :-1], weight)
    got = F.conv1d(F.pad(x, (0, 1)), doubled(weight, share))
    got = got.unflatten(1, (2, 3)).permute(0, 2, 3, 1).flatten(-2)
    torch.testing.assert_close(got[..., :-1], want)


@pytest.mark.parametrize("how", [{}, {"upsampling": "learned", "kernel_up": 3}], ids=str)
@pytest.mark.parametrize("shift", [8, 40])
def test_an_excerpt_is_a_part_of_a_longer_one(how, shift):
    network = small(**how)
    into, out = network.sizes(50)
    long = noise(1, 1, into + 80)
    part, whole = network.valid(long[..., shift : shift + into]), network.valid(long)
    torch.testing.assert_close(part, whole[..., shift : shift + out])
    shifted = network.valid(long[..., 1 : 1 + into])  # the grid has steps of 2 ** levels
    assert (shifted - whole[..., 1 : 1 + out]).abs().max() > 1e-4


def test_blocks_join_without_a_click_only_with_context():
    for context in (True, False):
        network = small(context=context)
        into, _ = network.sizes(80) if context else (80, 80)
        wav = noise(1, 1, into + 240)
        run = network.valid if context else network
        parts = torch.cat([run(wav[..., s : s + into])[..., :80] for s in (0, 80, 160)], -1)
        error = (parts - run(wav)[..., :240]).abs().amax((0, 1, 2))
        assert (error.max() < 1e-9) == context
        if not context:  # and it sits at the joints
            assert error[70:90].max() > 10 * error[30:45].max()


def test_separate_is_smooth_and_adds_up_at_full_rate_in_stereo():
    torch.manual_seed(0)
    network = WaveUNet(channels=2, levels=4, filters=4, sample_rate=22050).eval()
    time = torch.arange(3 * 44100) / 44100
    mix = 0.3 * torch.sin(2 * torch.pi * 220 * time + torch.tensor([[0.0], [1.0]]))
    whole = separate(network, mix, 44100, segment=10, progress=False)
    parts = separate(network, mix, 44100, segment=1, progress=False)
    assert parts.shape == (2, 2, 3 * 44100)
    inside = slice(4410, -4410)
    torch.testing.assert_close(parts.sum(0)[:, inside], mix[:, inside], rtol=0, atol=1e-4)
    rough = lambda est: est.diff(n=2, dim=-1).abs().amax()
    assert rough(parts) < 1.2 * rough(whole)


@variants
def test_gradients_equal_those_of_plain_steps(how, monkeypatch):
    network, mix, grads = small(**how), noise(2, 1, 300), []
    weight = noise(2, 2, 1, 300, seed=1)
    for plain in (False, True):
        monkeypatch.setattr(
            "sepbook.engine.decimation._must_be_plain", lambda x, plain=plain: plain
        )
        wave = mix.clone().requires_grad_()
        given = [wave, *network.parameters()]
        grads.append(torch.autograd.grad((network(wave) * weight).sum(), given))
    for got, want in zip(*grads):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 2])
def test_a_convolution_passes_first_and_second_gradcheck(stride, padding):
    conv = torch.nn.Conv1d(3, 4, 5, padding=padding).double()
    x = noise(2, 3, 20).requires_grad_()
    layer = lambda x, *_: leaky_conv(conv, x, stride)
    given = x, *conv.parameters()
    assert torch.autograd.gradcheck(layer, given) and torch.autograd.gradgradcheck(layer, given)


def test_a_way_up_passes_first_and_second_gradcheck():
    conv, share = torch.nn.Conv1d(5, 4, 5).double(), torch.rand(3).double().requires_grad_()
    given = noise(2, 3, 6).requires_grad_(), noise(2, 2, 11, seed=1).requires_grad_(), share
    up = lambda x, skip, share: leaky_conv_up(conv, x, skip, share)
    assert torch.autograd.gradcheck(up, given) and torch.autograd.gradgradcheck(up, given)


def test_weight_gradients_in_many_parts():
    x, conv = noise(3, 2, 5000), torch.nn.Conv1d(2, 4, 5, bias=False).double()
    leaky_conv(conv, x, slope=0.5).square().sum().backward()
    plain = F.leaky_relu(F.conv1d(x, conv.weight), 0.5).square().sum()
    want = torch.autograd.grad(plain, conv.weight)[0]
    torch.testing.assert_close(conv.weight.grad, want)


def test_long_excerpts_are_judged_in_their_middle():
    network = small()
    into, out = network.sizes(400)
    mix, src = noise(1, 1, into), noise(1, 2, 1, into, seed=1)
    around = (into - out) // 2
    want = F.mse_loss(network.valid(mix), src[..., around : around + out])
    torch.testing.assert_close(network.loss(mix, src), want)
    src[..., :around] = 1e3  # what lies outside does not count
    torch.testing.assert_close(network.loss(mix, src), want)
    short = mix[..., : network.sizes(1)[0]], src[..., : network.sizes(1)[0]]
    torch.testing.assert_close(network.loss(*short), F.mse_loss(network(short[0]), short[1]))


def test_silence_is_silent_until_trained_otherwise():
    for how in VARIANTS[:5]:
        assert run(small(**how), torch.zeros(1, 1, 300).double()).abs().max() == 0


def test_no_sample_is_out_of_range_with_tanh():
    est = run(small(output="direct"), 100 * noise(1, 1, 300))
    assert est.abs().max() <= 1


@pytest.mark.parametrize(
    "how, word",
    [
        ({"kernel": 4}, "odd"),
        ({"kernel_up": 0}, "odd"),
        ({"levels": 0}, "levels"),
        ({"lstm": -1}, "lstm"),
        ({"output": "sum"}, "one of difference, direct"),
        ({"upsampling": "cubic"}, "one of linear, learned"),
        ({"activation": "relu"}, "one of tanh, linear"),
        ({"sources": ["vocals"]}, "2 or more"),
        ({"sources": [], "output": "direct"}, "at least 1"),
    ],
)
def test_bad_settings_are_named_in_one_line(how, word):
    with pytest.raises(ValueError, match=word) as error:
        WaveUNet(**SMALL | how)
    assert "\n" not in str(error.value)


def test_bad_excerpts_are_named_in_one_line():
    network = small()
    for wrong in (1, network.sizes(1)[0] - 1, network.sizes(1)[0] + 1):
        with pytest.raises(ValueError, match="no valid excerpt") as error:
            network.valid(noise(1, 1, wrong))
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="no context"):
        small(context=False).valid(noise(1, 1, 96))
    with pytest.raises(ValueError, match="float64"):
        small().valid(noise(1, 1, network.sizes(1)[0]).float())
