"""TasNet and the encoder and decoder of part 4: odd lengths, bad input, precisions, streams."""

import pytest
import torch
from nets import noise, refused, run

from sepbook.engine.layers import LSTM, LiveState
from sepbook.models.tasnet import (
    NORMS,
    SIZES,
    EncoderDecoder,
    LayerNorm,
    TasNet,
    frames,
    overlap_add,
)

SMALL = {"n_filters": 24, "kernel": 16, "stride": 16, "hidden": 12, "layers": 3}


def small(**how) -> TasNet:
    torch.manual_seed(0)
    return TasNet(**SMALL | how).eval()


def test_parameter_counts():
    with torch.device("meta"):
        assert TasNet(**SIZES["TasNet-LSTM"]).n_params == 31_094_000
        assert TasNet(**SIZES["TasNet-BLSTM"]).n_params == TasNet().n_params == 23_094_000
        assert TasNet(gated=False).n_params == 23_094_000 - 20_000


# Frames


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(8, 8), (8, 4), (12, 3), (2, 1), (1, 1)])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 100])
def test_frames_against_a_loop(kernel, stride, length, pad):
    wav = noise(2, length)
    cut = frames(wav, kernel, stride, pad)
    before = kernel - stride if pad else 0
    long = torch.nn.functional.pad(wav, (before, 3 * kernel))
    for k, frame in enumerate(cut.unbind(1)):
        assert torch.equal(frame, long[:, k * stride : k * stride + kernel])
    want = torch.zeros(2, before + length + 3 * kernel)
    for k, frame in enumerate(cut.unbind(1)):
        want[:, k * stride : k * stride + kernel] += frame
    got = overlap_add(cut, stride, length, pad)
    torch.testing.assert_close(got, want[:, before : before + length])
    if pad:  # every sample lies in as many frames
        torch.testing.assert_close(got, wav * (kernel // stride))


def test_frames_keep_gradients_and_double_precision():
    wav = noise(1, 20, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: overlap_add(frames(w, 6, 3), 3, 20), wav)


# The base


class Half(EncoderDecoder):
    """Gives every source half of everything."""

    def __init__(self, kernel: int = 8, stride: int = 4, pad: bool = True):
        super().__init__(2, 16, kernel, stride, pad=pad)

    def masks_for(self, spec):
        return torch.full((*spec.shape[:2], 2, spec.shape[2]), 0.5)


@pytest.mark.parametrize(("kernel", "stride"), [(8, 8), (8, 4), (8, 2)])
def test_a_subclass_needs_masks_only(kernel, stride):
    network = Half(kernel, stride).eval()
    with torch.no_grad():
        network.decoder.copy_(torch.linalg.pinv(network.encoder).T * stride / kernel)
    mix = noise(3, 1, 101)
    torch.testing.assert_close(run(network, mix), mix[:, None].expand(3, 2, 1, 101) / 2)
    assert network.loss(mix, noise(3, 2, 1, 101)).ndim == 0


def test_the_base_says_what_is_missing():
    class Empty(EncoderDecoder):
        def __init__(self):
            super().__init__(2, 4, 4, 2)

    with pytest.raises(NotImplementedError, match="Empty has no masks_for"):
        Empty()(noise(1, 1, 20))


# TasNet


@pytest.mark.parametrize("causal", [True, False])
def test_sources_by_name(causal):
    network = small(sources=["anna", "ben", "cleo"], causal=causal)
    assert network.sources == ("anna", "ben", "cleo") and network.n_src == 3
    assert TasNet(**network.config).sources == network.sources
    assert run(network, noise(1, 1, 100)).shape == (1, 3, 1, 100)
    with refused("name of its own"):
        small(sources=["anna", "anna"])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n_src", [1, 2, 3])
@pytest.mark.parametrize("how", [{}, {"gated": False, "unit": False, "skip": False}])
def test_every_setting_trains(norm, n_src, how):
    network = small(norm=norm, n_src=n_src, dropout=0.2, **how).train()
    network.loss(noise(2, 1, 500), noise(2, n_src, 1, 500, seed=1)).backward()
    for name, p in network.named_parameters():
        assert p.grad.isfinite().all() and p.grad.abs().max() > 0, name


@pytest.mark.parametrize("norm", ["frame", "cLN"])
@pytest.mark.parametrize("stride", [16, 8])
def test_causal_networks_do_not_look_ahead(norm, stride):
    network = small(norm=norm, causal=True, stride=stride)
    a, b = noise(1, 1, 400), noise(1, 1, 400)
    b[..., 200:] = 7.0
    now = slice(0, 200 - network.kernel + 1)
    assert torch.equal(run(network, a)[..., now], run(network, b)[..., now])
    assert (run(network, a)[..., 200:] - run(network, b)[..., 200:]).abs().max() > 1e-4


def test_the_other_network_does_look_ahead():
    network = small()
    a, b = noise(1, 1, 400), noise(1, 1, 400)
    b[..., 200:] = 7.0
    assert (run(network, a)[..., :180] - run(network, b)[..., :180]).abs().max() > 1e-6


@pytest.mark.parametrize("norm", ["frame", "cLN"])
@pytest.mark.parametrize("block", [1, 3, 1000])
def test_blocks_give_what_the_recording_gives(norm, block):
    network, cut = small(norm=norm, causal=True), noise(2, 50, 16)
    with torch.no_grad():
        with LiveState():
            parts = [network.separate_frames(b) for b in cut.split(block, 1)]
        want = network.separate_frames(cut)
    torch.testing.assert_close(torch.cat(parts, 1), want, rtol=1e-4, atol=1e-6)


def test_cumulative_norm_after_minutes_with_an_offset():
    """Sums in single precision lose the variance when the mean is large."""
    norm, x = LayerNorm(8, "cLN"), noise(1, 60_000, 8) + 3000
    last = norm(x)[0, -1]
    want = (x[0, -1].double() - x.double().mean()) / x.double().std(correction=0)
    torch.testing.assert_close(last.double(), want, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("skip", [True, False])
def test_identity_paths_go_around_later_layers(skip):
    rnn, x = small(skip=skip).rnn, noise(1, 20, 24)
    with torch.no_grad():
        for p in rnn.layers[1:].parameters():
            p.zero_()
        first = rnn.layers[0](x)[0]
    assert torch.equal(run(rnn, x), first if skip else torch.zeros_like(first))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"norm": "gln"}, "frame, cLN, gLN"),
        ({"causal": True, "norm": "gLN"}, "whole recording"),
        ({"layers": 0}, "at least 1"),
        ({"kernel": 15, "stride": 8}, "whole strides"),
        ({"stride": 0}, "whole strides"),
        ({"kernel": 0, "stride": 1}, "whole strides"),
    ],
)
def test_bad_settings_are_refused_in_one_line(how, words):
    with refused(words):
        small(**how)


def test_one_batch_is_learned():
    torch.manual_seed(0)
    network = TasNet(**SMALL | {"hidden": 32})
    src = torch.stack([torch.sin(torch.arange(800) * f) for f in (0.2, 0.9)])[None, :, None]
    adam = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        adam.zero_grad()
        (loss := network.loss(src.sum(1), src)).backward()
        adam.step()
    assert loss < -8


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_single_frames_of_a_stream_go_through_the_cells(layers, monkeypatch):
    rnn, x = LSTM(5, 7, layers, batch_first=True).eval(), noise(2, 30, 5)
    with torch.no_grad():
        want = rnn(x)[0]
        with LiveState():
            parts = [rnn(x[:, :1])[0]]
            monkeypatch.setattr(torch.nn.LSTM, "forward", None)  # not asked again
            parts += [rnn(frame)[0] for frame in x[:, 1:].split(1, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), want, rtol=1e-5, atol=1e-6)
