"""TasNet against asteroid's LSTMTasNet with the same weights: outputs and gradients."""

import importlib
import warnings

import pytest
import torch

from sepbook.engine.weights import translate
from sepbook.mixtures import example_voices
from sepbook.models.tasnet import SIZES, TasNet
from sepbook.zoo import import_weights

SMALL = {"n_filters": 24, "kernel": 16, "stride": 8, "hidden": 20, "layers": 3}
AS_THEIRS = {"unit": False, "skip": False, "pad": False}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def asteroid(causal: bool, mask: str, n_src: int, **sizes) -> torch.nn.Module:
    """A network of theirs with random weights, gains and biases."""
    pytest.importorskip("asteroid", reason="asteroid is not installed: run `make parity`")
    torch.manual_seed(1)
    names = {"kernel": "kernel_size", "hidden": "hid_size", "layers": "n_layers"}
    sizes = {names.get(k, k): v for k, v in sizes.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = importlib.import_module("asteroid.models").LSTMTasNet(
            n_src, bidirectional=not causal, mask_act=mask, **sizes
        )
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if "bn_layer" in name or "encoder_sig" in name:
                p.add_(0.2 * torch.randn_like(p))
    return theirs.eval()


def pair(causal: bool, mask: str = "sigmoid", n_src: int = 2, **how):
    """Theirs, and ours with their weights."""
    sizes = SMALL | how
    theirs = asteroid(causal, mask, n_src, **sizes)
    norm = "cLN" if causal else "gLN"
    ours = TasNet(n_src, **sizes, **AS_THEIRS, causal=causal, norm=norm, mask=mask).eval()
    import_weights(ours, theirs.state_dict(), "asteroid")
    return theirs, ours


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("mask", "n_src"), [("sigmoid", 2), ("relu", 3)])
def test_outputs(causal, mask, n_src):
    theirs, ours = pair(causal, mask, n_src)
    voices = example_voices(3, seconds=0.5, seed=1).src
    for mix in (noise(3, 1, 777), noise(1, 1, 4001), noise(2, 1, 16), voices):
        with torch.no_grad():
            assert error(ours(mix)[:, :, 0], theirs(mix)) < 1e-5


@pytest.mark.parametrize("stride", [16, 8, 4])
def test_strides(stride):
    theirs, ours = pair(True, stride=stride)
    with torch.no_grad():
        assert error(ours(noise(2, 1, 999))[:, :, 0], theirs(noise(2, 1, 999))) < 1e-5


@pytest.mark.parametrize("causal", [True, False])
def test_gradients(causal):
    theirs, ours = pair(causal)
    mix, weight = noise(3, 1, 777), noise(3, 2, 777, seed=5)
    (theirs(mix) * weight).sum().backward()
    (ours(mix)[:, :, 0] * weight).sum().backward()
    grads = {k: p.grad for k, p in theirs.named_parameters(remove_duplicate=False)}
    want = translate(ours, grads, "asteroid")
    for name, p in ours.named_parameters():
        assert error(p.grad, want[name]) < 1e-5, name


@pytest.mark.parametrize("name", ["TasNet-LSTM", "TasNet-BLSTM"])
def test_the_papers_sizes(name):
    how = {"n_filters": 500, "kernel": 40, "stride": 40, "layers": 4} | SIZES[name]
    causal = how.pop("causal")
    theirs, ours = pair(causal, **how)
    params = sum(p.numel() for p in theirs.parameters())
    assert ours.n_params == params == {True: 31_094_000, False: 23_094_000}[causal]
    with torch.no_grad():
        assert error(ours(noise(1, 1, 1001))[:, :, 0], theirs(noise(1, 1, 1001))) < 1e-5


def test_another_size_is_refused():
    theirs = asteroid(False, "sigmoid", 2, **SMALL | {"layers": 4})
    ours = TasNet(**SMALL, **AS_THEIRS, norm="gLN")
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    with pytest.raises(ValueError, match="asteroid") as fault:
        import_weights(ours, theirs.state_dict(), "asteroid")
    assert "\n" not in str(fault.value)
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())
