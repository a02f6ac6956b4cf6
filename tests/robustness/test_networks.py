"""What every network of the package keeps to, whatever chapter it comes from."""

import copy

import pytest
import torch

from sepbook.cli import network_classes
from sepbook.engine import layers
from sepbook.learner import Objective
from sepbook.separate import separate
from sepbook.zoo import load, save

SMALL = {  # arguments that make each network small
    "feedforwardmask": {"hidden": 8, "sample_rate": 8000, "channels": 1, "n_fft": 128, "hop": 64},
    "recurrentmask": {"hidden": 8, "sample_rate": 8000, "channels": 1, "n_fft": 128, "hop": 64},
    "openunmix": {"hidden": 8, "sample_rate": 8000, "n_fft": 128, "hop": 64, "bandwidth": None},
    "unet": {"widths": (2, 4), "n_fft": 128, "hop": 96, "n_bins": 64},
    "spleeter": {
        "sample_rate": 8000,
        "widths": (2, 4),
        "n_fft": 128,
        "hop": 32,
        "n_bins": 32,
        "patch": 16,
    },
    "livedenoiser": {"filters": (4, 6), "hidden": 6, "window": 64, "hop": 32, "memory": 20},
    "segan": {"widths": (4, 8)},
    "dcunet": {"layers": ((4, 7, 5, 2, 2), (6, 5, 3, 2, 1)), "n_fft": 64, "hop": 16},
    "dccrn": {"widths": (3, 4), "hidden": 4, "n_fft": 64, "win_length": 50, "hop": 13},
    "phasen": {
        "loud": 4,
        "turn": 3,
        "blocks": 1,
        "hidden": 6,
        "n_fft": 64,
        "win_length": 50,
        "hop": 20,
    },
    "fullsubnet": {"full_hidden": 8, "sub_hidden": 6, "neighbours": 3, "n_fft": 64, "hop": 32},
    "fullsubnetplus": {"full_hidden": 8, "sub_hidden": 6, "neighbours": 3, "n_fft": 64, "hop": 32},
    "deepclustering": {"n_fft": 64, "hop": 16, "hidden": 8, "dim": 4},
    "chimera": {"n_fft": 64, "hop": 16, "hidden": 8, "layers": 2, "dim": 4},
    "upit": {"hidden": 8, "layers": 2, "window": 64, "hop": 32},
    "tasnet": {"n_filters": 8, "hidden": 8, "layers": 2},
    "convtasnet": {"n_filters": 8, "bottleneck": 8, "hidden": 8, "skip": 8, "blocks": 2},
    "secondlook": {
        "hidden": 8,
        "first": {"n_filters": 8, "bottleneck": 8, "hidden": 8, "skip": 8, "blocks": 2},
    },
    "dprnn": {"n_filters": 8, "bottleneck": 8, "hidden": 8, "chunk": 10, "blocks": 1},
    "sepformer": {"n_filters": 8, "chunk": 10, "layers": 1, "heads": 2, "hidden": 8},
    "bsrnn": {
        "sample_rate": 8000,
        "n_fft": 128,
        "hop": 64,
        "features": 8,
        "hidden": 8,
        "blocks": 1,
        "mask_hidden": 8,
    },
    "demucs": {"hidden": 4, "depth": 2, "lstm": 1, "sample_rate": 8000},
    "hdemucs": {"hidden": 8, "depth": 3, "n_fft": 64, "compress": 2, "deep": 1},
    "htdemucs": {"hidden": 8, "depth": 1, "n_fft": 64, "bottom": 8, "heads": 2, "segment": 0},
    "waveunet": {"levels": 2, "filters": 4, "kernel": 5, "sample_rate": 8000},
}
KNOWN = network_classes()
every_network = pytest.mark.parametrize("name", sorted(KNOWN))


def build(name: str):
    """A small network, the same each time."""
    torch.manual_seed(0)
    return KNOWN[name](**SMALL[name])


def pair(model, frames: int = 1501, batch: int = 2):
    """A batch for a network: mix (batch, channel, time), src (batch, source, channel, time)."""
    torch.manual_seed(1)
    src = 0.1 * torch.randn(batch, len(model.sources), model.channels, frames)
    return src.sum(1), src


def test_all_networks_are_here():
    assert set(SMALL) == set(KNOWN)


@every_network
def test_shape_and_length(name):
    model = build(name).eval()
    mix, src = pair(model)
    for frames in (1, 1500, 1501):
        est = model(mix[..., :frames])
        assert est.shape == src[..., :frames].shape and est.isfinite().all()


@every_network
def test_trains_in_full_and_in_half_precision(name):
    for bf16 in (False, True):
        model = build(name).train()
        loss = Objective(model, bf16=bf16)(*pair(model))
        loss.backward()
        found = [p.grad for p in model.parameters() if p.grad is not None]
        assert loss.isfinite() and found and all(g.isfinite().all() for g in found)
        assert sum(float(g.abs().sum()) for g in found) > 0


@every_network
def test_separates_in_half_precision(name):
    """Near the float32 result, but not it; also with weights that are stored in half."""
    model = build(name)
    mix = pair(model, 3001)[0][0]
    how = {"segment": 0.25, "progress": False}
    exact = separate(model, mix, **how)
    for network, most in ((model, 0.1), (copy.deepcopy(model).bfloat16(), 0.2)):
        near = separate(network, mix, precision="bf16", **how)
        assert near.dtype == torch.float32 and near.isfinite().all()
        assert 1e-5 < float((near - exact).norm() / exact.norm()) < most


def test_an_lstm_stays_in_single_precision_on_processors_without_another(monkeypatch):
    rnn, x = layers.LSTM(5, 6, 2, batch_first=True), torch.randn(2, 9, 5)
    monkeypatch.setattr(layers, "_half_lstm", lambda: False)
    with torch.no_grad():
        want = rnn(x)[0]
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(rnn(x)[0], want) and torch.equal(layers.recurrent(rnn, x), want)


@every_network
def test_saved_and_loaded_it_is_the_same(name, tmp_path):
    model = build(name).eval()
    save(model, tmp_path / "net.safetensors", {"data": "noise"})
    again = load(tmp_path / "net.safetensors").eval()
    mix, _ = pair(model)
    assert type(again) is type(model) and again.config == model.config
    torch.manual_seed(2)
    est = model(mix)
    torch.manual_seed(2)
    assert torch.equal(again(mix), est)


@every_network
def test_copies_are_independent(name):
    model = build(name).eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    assert any(bool(p.any()) for p in model.parameters())
    assert other.config == model.config and other.sources == model.sources


@every_network
def test_bad_mixtures_are_named(name):
    model = build(name).eval()
    mix, _ = pair(model)
    with pytest.raises(ValueError, match="channel"):
        model(torch.cat([mix] * 2, 1))
    with pytest.raises((ValueError, TypeError)):
        model(mix[0])
    with pytest.raises(ValueError):
        model(mix[..., :0])
    broken = mix.clone()
    broken[0, 0, 5] = float("nan")
    with pytest.raises(ValueError):
        model(broken)
