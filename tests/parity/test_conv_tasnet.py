"""Conv-TasNet with the weights of torchaudio and asteroid: the same outputs, the same gradients."""

import importlib
import io

import pytest
import torch
import torchaudio
from nets import peer, same_outputs, shaken, signals

from sepbook.engine.names import PUBLISHED
from sepbook.engine.weights import translate, translators
from sepbook.models.conv_tasnet import ConvTasNet
from sepbook.zoo import import_weights, read_weights

ASTEROID_NORMS = {"gLN": "gLN", "cLN": "cgLN", "frame": "cLN", "BN": "bN"}
SMALL = {
    "n_filters": 48,
    "kernel": 16,
    "bottleneck": 24,
    "hidden": 40,
    "skip": 16,
    "blocks": 4,
    "repeats": 2,
}


def asteroid(norm: str = "gLN", causal: bool = False, mask: str = "relu", n_src: int = 2, **size):
    """Asteroid's network with our names for the sizes; skipped where it is not installed."""
    return peer("asteroid.models").ConvTasNet(
        n_src,
        n_filters=size["n_filters"],
        kernel_size=size["kernel"],
        stride=size["kernel"] // 2,
        bn_chan=size["bottleneck"],
        hid_chan=size["hidden"],
        skip_chan=size["skip"],
        n_blocks=size["blocks"],
        n_repeats=size["repeats"],
        norm_type=ASTEROID_NORMS[norm],
        mask_act=mask,
        causal=causal,
    )


def compare_gradients(ours, theirs, peer: str) -> None:
    """In double precision, where nothing hides behind rounding; our names for both."""
    ours, theirs = ours.double(), theirs.double()
    mix = signals()["voices"].double()
    draw = torch.Generator().manual_seed(2)
    weight = torch.randn(3, ours.n_src, mix.shape[-1], generator=draw, dtype=torch.float64)
    inputs = [mix.clone().requires_grad_() for _ in range(2)]
    (ours(inputs[0])[:, :, 0] * weight).sum().backward()
    (theirs(inputs[1]) * weight).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-5, atol=1e-9)
    zeros = lambda p: torch.zeros_like(p) if p.grad is None else p.grad
    grads = {name: zeros(p) for name, p in theirs.named_parameters()}
    buffers = {k: v for k, v in theirs.state_dict().items() if k not in grads}
    want = translate(ours, grads | buffers, peer)
    for name, p in ours.named_parameters():
        error = (zeros(p) - want[name]).abs().max() / want[name].abs().max().clamp(min=1e-12)
        assert error < 1e-5, (name, error)


@pytest.mark.parametrize("mask", ["relu", "sigmoid"])
@pytest.mark.parametrize("n_src", [2, 3])
def test_torchaudio(mask, n_src):
    theirs = shaken(torchaudio.models.ConvTasNet(n_src, 16, 48, 3, 24, 40, 4, 2, mask))
    sizes = SMALL | {"skip": 24}
    ours = ConvTasNet(n_src, **sizes, mask=mask, last_residual=False).eval()
    import_weights(ours, theirs.state_dict(), "torchaudio")
    same_outputs(ours, theirs)
    compare_gradients(ours, theirs, "torchaudio")


def test_torchaudio_at_the_size_of_its_bundle():
    bundle = PUBLISHED["ConvTasNet"]["torchaudio:CONVTASNET_BASE_LIBRI2MIX"]
    theirs = shaken(torchaudio.models.conv_tasnet_base(2))
    ours = ConvTasNet(**bundle["config"]).eval()
    assert ours.n_params == sum(p.numel() for p in theirs.parameters()) == 4_984_881
    import_weights(ours, theirs.state_dict(), bundle["peer"])
    same_outputs(ours, theirs)


@pytest.mark.parametrize(
    ("norm", "causal"),
    [("gLN", False), ("cLN", False), ("cLN", True), ("frame", True), ("BN", False)],
)
def test_asteroid(norm, causal):
    theirs = shaken(asteroid(norm, causal, **SMALL))
    ours = ConvTasNet(**SMALL, norm=norm, causal=causal, mask="relu", pad=False).eval()
    import_weights(ours, theirs.state_dict(), "asteroid")
    same_outputs(ours, theirs)
    compare_gradients(ours, theirs, "asteroid")


@pytest.mark.parametrize(("mask", "n_src"), [("sigmoid", 3), ("softmax", 2)])
def test_asteroid_masks(mask, n_src):
    theirs = shaken(asteroid(mask=mask, n_src=n_src, **SMALL))
    ours = ConvTasNet(n_src, **SMALL, mask=mask, pad=False).eval()
    import_weights(ours, theirs.state_dict(), "asteroid")
    same_outputs(ours, theirs)


def test_asteroid_without_skips():
    theirs = shaken(asteroid(**SMALL | {"skip": 0}))
    ours = ConvTasNet(**SMALL | {"skip": 0}, mask="relu", pad=False).eval()
    import_weights(ours, theirs.state_dict(), "asteroid")
    same_outputs(ours, theirs)


def test_asteroid_at_the_paper_size():
    pytest.importorskip("asteroid", reason="asteroid is not installed: run `make parity`")
    theirs = shaken(importlib.import_module("asteroid.models").ConvTasNet(2, mask_act="relu"))
    ours = ConvTasNet(mask="relu", pad=False).eval()
    assert ours.n_params == sum(p.numel() for p in theirs.parameters()) == 5_050_545
    import_weights(ours, theirs.state_dict(), "asteroid")
    same_outputs(ours, theirs)


def test_asteroid_reads_the_file_that_it_writes(tmp_path):
    """A checkpoint as asteroid's serialize() makes it, with more in it than tensors."""
    theirs = shaken(asteroid(**SMALL))
    buffer = io.BytesIO()
    torch.save(
        {
            "model_name": "ConvTasNet",
            "state_dict": theirs.state_dict(),
            "model_args": {"n_src": 2},
            "infos": {"software_versions": {}},
        },
        buffer,
    )
    (tmp_path / "pytorch_model.bin").write_bytes(buffer.getvalue())
    ours = ConvTasNet(**SMALL, mask="relu", pad=False).eval()
    import_weights(ours, read_weights(tmp_path / "pytorch_model.bin"), "asteroid")
    same_outputs(ours, theirs)


@pytest.mark.parametrize("peer", ["asteroid", "torchaudio"])
def test_another_size_is_refused(peer):
    if peer == "asteroid":
        theirs = asteroid(**SMALL | {"repeats": 3})
    else:
        theirs = torchaudio.models.ConvTasNet(2, 16, 48, 3, 24, 40, 4, 3, "relu")
    ours = ConvTasNet(
        **SMALL | {"skip": 24 if peer == "torchaudio" else 16}, last_residual=peer == "asteroid"
    )
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    with pytest.raises(ValueError) as error:
        import_weights(ours, theirs.state_dict(), peer)
    assert "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())


def test_published_checkpoints_name_what_they_need():
    for name, entry in PUBLISHED["ConvTasNet"].items():
        assert name.startswith(("hf:", "torchaudio:"))
        assert entry["peer"] in translators(ConvTasNet) and entry["licence"]
        network = ConvTasNet(**entry["config"])
        assert network.n_params > 4_900_000
