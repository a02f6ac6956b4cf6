"""Open-Unmix with the weights of `openunmix` gives its outputs, Wiener filter included."""

import pytest
import torch

from sepbook.mixtures import MUSDB_SOURCES, example_song
from sepbook.models.mask_networks import OpenUnmix, umxhq, umxl, wiener_em
from sepbook.zoo import import_weights

peer = pytest.importorskip("openunmix.model", reason="openunmix is missing; run `make parity`")
filtering = pytest.importorskip("openunmix.filtering", reason="run `make parity`")

SIZES = [(512, 8_893_348), (1024, 28_257_188)]
SMALL = {"hidden": 32, "n_fft": 1024, "hop": 256, "n_layers": 2}


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Weights and statistics that no default would give, in evaluation mode."""
    for name, value in module.state_dict().items():
        if value.is_floating_point() and value.ndim:
            noise = 0.3 * torch.randn_like(value)
            value.copy_(value + noise.abs() if "running_var" in name else value + noise * 0.2)
    return module.eval()


def target(hidden: int = 32, n_fft: int = 1024, channels: int = 2, **more) -> torch.nn.Module:
    max_bin = int(16000 * n_fft / 44100) + 1
    return peer.OpenUnmix(n_fft // 2 + 1, channels, hidden, max_bin=max_bin, **more)


def theirs(names=MUSDB_SOURCES, n_fft=1024, hop=256, channels=2, n_layers=2, hidden=32, **how):
    """Their Separator with shaken targets."""
    more = {"nb_layers": n_layers, "unidirectional": how.pop("unidirectional", False)}
    nets = {name: shaken(target(hidden, n_fft, channels, **more)) for name in names}
    shape = {"n_fft": n_fft, "n_hop": hop, "nb_channels": channels}
    return peer.Separator(nets, **shape, **how).eval()


@torch.no_grad()
@pytest.mark.parametrize("hidden, count", SIZES)
def test_one_target(hidden, count):
    net = {512: umxhq, 1024: umxl}[hidden](sources=("vocals",)).eval()
    other = shaken(target(hidden, 4096))
    assert net.n_params == sum(p.numel() for p in other.parameters()) == count
    import_weights(net, other.state_dict(), "openunmix")
    mag = torch.rand(2, 2, 2049, 20)
    mine = net.masks(mag)[:, 0] * mag
    torch.testing.assert_close(mine, other(mag), atol=1e-5, rtol=0)
    assert mine.std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("what", ["noise", "song"])
@pytest.mark.parametrize(
    "how", [{}, {"niter": 0}, {"niter": 2}, {"residual": True}, {"softmask": True}], ids=str
)
def test_separator(what, how):
    mix = torch.randn(2, 2, 20000) * 0.2 if what == "noise" else example_song().mix[None]
    if how.get("residual"):  # openunmix writes ones into bins of exactly zero, which leak into it
        mix = mix + 1e-4 * torch.randn_like(mix)
    other = theirs(**({"niter": 1} | how))
    mine = {"n_iter": how.get("niter", 1)} | {k: v for k, v in how.items() if k != "niter"}
    net = import_weights(OpenUnmix(**SMALL, **mine), other.state_dict(), "openunmix").eval()
    est, want = net(mix), other(mix)
    assert est.shape == want.shape and want.abs().max() > 0.01
    torch.testing.assert_close(est, want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_umxhq_on_the_song():
    mix = example_song().mix[None]
    other = theirs(n_fft=4096, hop=1024, hidden=512, n_layers=3, niter=1)
    net = import_weights(umxhq(), other.state_dict(), "openunmix").eval()
    torch.testing.assert_close(net(mix), other(mix), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("unidirectional", [False, True])
def test_other_settings(channels, unidirectional):
    how = {"channels": channels, "unidirectional": unidirectional}
    other = theirs(("speech", "noise"), **how, niter=1)
    net = OpenUnmix(("speech", "noise"), **how, **SMALL)
    import_weights(net, other.state_dict(), "openunmix").eval()
    mix = torch.randn(1, channels, 30001) * 0.2
    torch.testing.assert_close(net(mix), other(mix), atol=1e-5, rtol=0)


@torch.no_grad()
def test_published_files_hold_one_target_each():
    """With the buffers that old files carry, and without the counters that they lack."""
    other, state = theirs(), {}
    for name, net in other.target_models.items():
        kept = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
        state |= {f"{name}.{k}": v for k, v in kept.items()}
        state |= {
            f"{name}.sample_rate": torch.tensor(44100.0),
            f"{name}.stft.window": torch.ones(9),
        }
    net = import_weights(OpenUnmix(**SMALL, n_iter=0), state, "openunmix").eval()
    mix = torch.randn(1, 2, 9999) * 0.2
    torch.testing.assert_close(net(mix), other(mix), atol=1e-5, rtol=0)


def test_weights_of_other_sources_are_refused():
    state = theirs(("speech", "noise")).state_dict()
    with pytest.raises(ValueError, match="no weights for 'vocals'"):
        import_weights(OpenUnmix(**SMALL), state, "openunmix")


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("n_iter", [0, 1, 3])
@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
def test_wiener(dtype, channels, n_iter, flags):
    softmask, residual = flags
    draw = torch.Generator().manual_seed(n_iter)
    mag = 30 * torch.rand(3, channels, 65, 40, generator=draw, dtype=dtype)
    mix = torch.randn(channels, 65, 40, 2, generator=draw, dtype=dtype) * 20
    pair = mag.permute(3, 2, 1, 0).clone(), mix.permute(2, 1, 0, 3).clone()
    want = filtering.wiener(*pair, n_iter, softmask=softmask, residual=residual)
    want = torch.view_as_complex(want.transpose(-1, -2).contiguous()).permute(3, 2, 1, 0)
    how = {"n_iter": n_iter, "softmask": softmask, "residual": residual}
    est = wiener_em(mag, torch.view_as_complex(mix.contiguous()), **how)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-6  # their pi has single precision
    torch.testing.assert_close(est, want, atol=tolerance * want.abs().max().item(), rtol=0)
