"""TasNet and the encoder and decoder of part 4: odd lengths, bad input, precisions, streams."""

import copy

import pytest
import torch

from sepbook.learner import Learner, Objective
from sepbook.mixtures import MixtureDataset, example_corpus
from sepbook.models.tasnet import (
    NORMS,
    SIZES,
    EncoderDecoder,
    LayerNorm,
    TasNet,
    frames,
    overlap_add,
)
from sepbook.separate import separate
from sepbook.zoo import import_weights, load, save

SMALL = {"n_filters": 24, "kernel": 16, "stride": 16, "hidden": 12, "layers": 3}


def small(**how) -> TasNet:
    torch.manual_seed(0)
    return TasNet(**SMALL | how).eval()


def noise(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def run(network, mix) -> torch.Tensor:
    with torch.no_grad():
        return network(mix)


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
        super().__init__()
        self.set_coder(2, 16, kernel, stride, pad=pad)

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
            super().__init__()
            self.set_coder(2, 4, 4, 2)

    with pytest.raises(NotImplementedError, match="Empty has no masks_for"):
        Empty()(noise(1, 1, 20))


# TasNet


@pytest.mark.parametrize("how", [{}, {"stride": 8}, {"pad": False}, {"stride": 4, "pad": False}])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 100, 777])
def test_any_length(length, how):
    est = run(small(**how), noise(3, 1, length))
    assert est.shape == (3, 2, 1, length) and est.isfinite().all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n_src", [1, 2, 3])
@pytest.mark.parametrize("how", [{}, {"gated": False, "unit": False, "skip": False}])
def test_every_setting_trains(norm, n_src, how):
    network = small(norm=norm, n_src=n_src, dropout=0.2, **how).train()
    network.loss(noise(2, 1, 500), noise(2, n_src, 1, 500, seed=1)).backward()
    for name, p in network.named_parameters():
        assert p.grad.isfinite().all() and p.grad.abs().max() > 0, name


@pytest.mark.parametrize("objective", ["si_sdr", "snr"])
@pytest.mark.parametrize("unit", [True, False])
def test_silence_gives_silence_and_finite_gradients(objective, unit):
    network = small(objective=objective, unit=unit)
    assert run(network, torch.zeros(1, 1, 300)).abs().max() == 0
    mix = torch.zeros(1, 1, 300, requires_grad=True)
    network.train().loss(mix, torch.zeros(1, 2, 1, 300)).backward()
    assert mix.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_level_scales_through(norm, factor):
    network, mix = small(norm=norm), noise(1, 1, 800)
    torch.testing.assert_close(
        run(network, factor * mix) / factor, run(network, mix), rtol=1e-4, atol=1e-5
    )


def test_items_of_a_batch_are_alone():
    network, mix = small(norm="gLN"), noise(4, 1, 500)
    alone = torch.cat([run(network, one[None]) for one in mix])
    torch.testing.assert_close(run(network, mix), alone, rtol=1e-4, atol=1e-6)


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
    network, cut, past = small(norm=norm, causal=True), noise(2, 50, 16), {}
    with torch.no_grad():
        parts = [network.separate_frames(b, past) for b in cut.split(block, 1)]
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions(dtype):
    network, mix = small(norm="cLN"), noise(2, 1, 333)
    got = run(copy.deepcopy(network).to(dtype), mix.to(dtype))
    assert got.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float64 else 0.1
    assert (got.float() - run(network, mix)).abs().max() < tolerance


def test_mixed_precision_trains_on_the_cpu():
    network = small().train()
    loss = Objective(network, bf16=True)(noise(2, 1, 500), noise(2, 2, 1, 500, seed=1))
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        (noise(1, 2, 100), "mono"),
        (noise(1, 100), "batch of one"),
        (noise(1, 1, 0), "shape"),
        (torch.full((1, 1, 100), torch.nan), "NaN"),
        (noise(1, 1, 100, dtype=torch.float64), "float64"),
        (noise(1, 1, 100).half(), "float16"),
        (torch.zeros(1, 1, 100, dtype=torch.int16), "floating"),
    ],
)
def test_bad_input_is_refused_in_one_line(mix, words):
    with pytest.raises((ValueError, TypeError), match=words) as fault:
        run(small(), mix)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"norm": "gln"}, "frame, cLN, gLN"),
        ({"mask": "tanh"}, "softmax"),
        ({"encoder": "gelu"}, "relu"),
        ({"objective": "mse"}, "si_sdr"),
        ({"causal": True, "norm": "gLN"}, "whole recording"),
        ({"layers": 0}, "one layer"),
        ({"kernel": 15, "stride": 8}, "whole strides"),
        ({"stride": 0}, "whole strides"),
        ({"kernel": 0, "stride": 1}, "whole strides"),
    ],
)
def test_bad_settings_are_refused_in_one_line(how, words):
    with pytest.raises(ValueError, match=words) as fault:
        small(**how)
    assert "\n" not in str(fault.value)


def test_foreign_weights_are_refused():
    with pytest.raises(ValueError, match="torchaudio") as fault:
        import_weights(small(), {"x": torch.zeros(1)}, "torchaudio")
    assert "\n" not in str(fault.value)


def test_saved_and_loaded(tmp_path):
    network = small(causal=True, norm="cLN")
    save(network, tmp_path / "net.safetensors", {"data": "noise"})
    again = load(tmp_path / "net.safetensors")
    assert type(again) is TasNet and again.config == network.config
    assert torch.equal(run(again.eval(), noise(1, 1, 300)), run(network, noise(1, 1, 300)))


def test_long_recordings_in_pieces():
    est = separate(small(), noise(1, 8000 * 6), segment=2.0, progress=False)
    assert est.shape == (2, 1, 48_000) and est.isfinite().all()


def test_the_learner_trains_it():
    network = small(objective="snr")
    data = MixtureDataset(example_corpus(), n_src=2, seconds=0.5, size=16, seed=1)
    before = copy.deepcopy(network.state_dict())
    Learner(network, data, batch_size=4, lr=3e-3).fit(steps=4, progress=False)
    for name, p in network.named_parameters():
        assert p.isfinite().all() and not torch.equal(p, before[name]), name


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
