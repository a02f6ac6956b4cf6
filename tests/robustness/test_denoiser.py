"""The live denoiser and `SpectralStream`: causal, level-free, blocks as the whole."""

import pytest
import torch

import sepbook
from sepbook.engine.live import SpectralStream, centred
from sepbook.engine.streams import Loudness, separate
from sepbook.learner import Objective
from sepbook.models.complex_networks import DCCRN
from sepbook.models.denoiser import CausalConv, LiveDenoiser, RunningLevel
from sepbook.models.fullsubnet import FullSubNet

SMALL = {"filters": (6, 8, 8), "hidden": 16, "memory": 20}


def small(**other) -> LiveDenoiser:
    """A little network with statistics that are not those of a new one."""
    torch.manual_seed(0)
    net = LiveDenoiser(**SMALL | other)
    net.train()(torch.randn(4, 1, 8000))
    return net.eval()


def joined(stream: SpectralStream, mix: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """The recording block by block; the last size is repeated."""
    parts, start = [], 0
    while start < mix.shape[-1]:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        parts.append(stream(mix[..., start : start + size]))
        start += size
    return torch.cat([*parts, stream.flush()], -1)


@pytest.mark.parametrize("sizes", [[1, 7, 600, 160], [5000], [256], [100]])
@pytest.mark.parametrize("how", [{}, {"window": 256, "hop": 128}, {"layers": 1}])
@torch.no_grad()
def test_blocks_are_the_whole(sizes, how):
    net, mix = small(**how), torch.randn(2, 1, 5003)
    stream = net.stream()
    for _ in range(2):  # after flush it begins anew
        got = joined(stream, mix, list(sizes))
        assert torch.allclose(got, net(mix), atol=1e-5)


@torch.no_grad()
def test_no_sample_waits_longer_than_the_latency():
    stream, given = small().stream(), 0
    for k in range(40):
        given += stream(torch.randn(1, 1, 100)).shape[-1]
        assert given >= 100 * (k + 1) - stream.latency


@torch.no_grad()
def test_looks_back_only():
    net, mix = small(), torch.randn(1, 1, 8000)
    other = mix.clone()
    other[..., 4000:] = 0
    same = 4000 - net.stft.n_fft
    assert torch.equal(net(mix)[..., :same], net(other)[..., :same])


@pytest.mark.parametrize("gain", [-60, -20, 20])
@torch.no_grad()
def test_level_does_not_matter(gain):
    net, mix, factor = small(), 0.1 * torch.randn(1, 1, 8000), 10 ** (gain / 20)
    assert torch.allclose(net(factor * mix) / factor, net(mix), atol=1e-4)


@torch.no_grad()
def test_estimates_add_up_and_silence_stays():
    net, mix = small(), torch.randn(1, 1, 4000)
    assert torch.allclose(net(mix).sum(1), mix, atol=1e-6)
    assert not net(torch.zeros(1, 1, 4000)).any()
    assert net(torch.cat([torch.zeros(1, 1, 4000), mix], -1)).isfinite().all()


@pytest.mark.parametrize("length", [1, 2, 255, 256, 257, 4001])
def test_any_length(length):
    assert small()(torch.randn(1, 1, length)).shape == (1, 2, 1, length)


def test_running_level_against_a_loop():
    power, level = torch.rand(2, 1, 50), RunningLevel(7)
    want = [power[..., max(0, t - 6) : t + 1].mean(-1) for t in range(50)]
    assert torch.allclose(level(power), torch.stack(want, -1), atol=1e-6)


def test_causal_conv_is_a_padded_convolution():
    conv, x = CausalConv(3, 4), torch.randn(2, 3, 9, 17)
    before = torch.cat([torch.zeros(2, 3, 1, 17), x], 2)
    want = torch.nn.functional.conv2d(before, conv.weight, conv.bias, (1, 2), (0, 2))
    assert torch.allclose(conv(x), want, atol=1e-6)


def test_gradients_are_finite():
    net = small().train()
    speech = torch.cat([torch.zeros(1, 1, 1, 4000), torch.randn(1, 1, 1, 4000)], 0)
    src = torch.cat([speech, torch.randn(2, 1, 1, 4000)], 1)  # one item without speech
    net.loss(src.sum(1), src).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"hidden": 0}, "hidden"),
        ({"memory": 0}, "memory"),
        ({"sources": ("speech",)}, "two"),
        ({"window": 500}, "multiple of"),
        ({"filters": ()}, "multiple of"),
        ({"filters": (8, 0)}, "filters is 0"),
        ({"window": 0}, "window is 0"),
        ({"hop": 0}, "hop is 0"),
    ],
)
def test_settings_that_do_not_fit(how, told):
    with pytest.raises(ValueError, match=told):
        LiveDenoiser(**SMALL | how)


def test_names_are_no_filters():
    with pytest.raises(TypeError, match="filters"):
        LiveDenoiser(filters="ab")


def test_trains_in_bfloat16():
    """Complex masks stay in float32, since bfloat16 has no complex numbers."""
    net, src = small().train(), torch.randn(2, 2, 1, 4000)
    want = net.loss(src.sum(1), src).item()
    loss = Objective(net, bf16=True)(src.sum(1), src)
    loss.backward()
    assert abs(loss.item() - want) < 0.05 * abs(want)
    assert all(p.grad.isfinite().all() for p in net.parameters())
    assert small().double()(src.sum(1).double()).dtype == torch.float64


@torch.no_grad()
def test_windows_of_ten_milliseconds():
    net, mix = small(window=160, hop=80).eval(), torch.randn(1, 1, 3001)
    assert torch.allclose(joined(net.stream(), mix, [77]), net(mix), atol=1e-5)
    with pytest.raises(ValueError, match="multiple of 64"):
        LiveDenoiser(**SMALL | {"filters": (4,) * 5, "window": 160, "hop": 80})


def test_what_a_stream_refuses():
    with pytest.raises(ValueError, match="spectra"):
        SpectralStream(torch.nn.Linear(2, 2), centred(small().stft))
    net = small()
    net.causal = False
    with pytest.raises(ValueError, match="future"):
        net.stream()
    net.causal = True
    stream = net.stream()
    with pytest.raises(ValueError, match="nothing was streamed"):
        stream.flush()
    stream(torch.zeros(1, 1, 100))
    with pytest.raises(ValueError, match="began with"):
        stream(torch.zeros(2, 1, 100))


# networks that hear the level


def level_bound(kind: type) -> torch.nn.Module:
    """A small network whose masks depend on the level."""
    torch.manual_seed(0)
    sizes = {
        DCCRN: {"widths": (3, 4, 5), "hidden": 6, "n_fft": 64, "win_length": 50, "hop": 13},
        FullSubNet: {"full_hidden": 8, "sub_hidden": 6, "neighbours": 3, "n_fft": 64, "hop": 32},
    }
    more = {"norm": "cumulative"} if kind is FullSubNet else {}
    net = kind(**sizes[kind], **more)
    net.train()(0.1 * torch.randn(2, 1, 3000))
    return net.eval()


def swelling(seconds: float = 1.0) -> torch.Tensor:
    """Two recordings that get louder, at two levels."""
    mix = torch.randn(2, 1, round(16000 * seconds)) * torch.tensor([[[0.05]], [[0.3]]])
    return mix * torch.linspace(0.05, 1, mix.shape[-1])


both_kinds = pytest.mark.parametrize("kind", [DCCRN, FullSubNet])


@both_kinds
@pytest.mark.parametrize("gain", [1e-3, 10.0])
@torch.no_grad()
def test_a_stream_does_not_hear_the_level(kind, gain):
    net, mix = level_bound(kind), swelling()
    want = joined(sepbook.Stream(net), mix, [mix.shape[-1]])
    got = joined(sepbook.Stream(net), gain * mix, [1, 700, 33]) / gain
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(want.sum(1), mix, atol=1e-5, rtol=1e-4)
    raw = net(gain * mix) / gain - net(mix)  # the network itself does
    assert raw.abs().max() > 100 * (got - want).abs().max()
    alone = joined(sepbook.Stream(net), mix[1:], [500])
    torch.testing.assert_close(alone, want[1:], atol=1e-5, rtol=1e-3)


@both_kinds
@torch.no_grad()
def test_a_stream_that_is_told_the_level_is_the_file(kind):
    net, mix = level_bound(kind), swelling()[:1]
    level = Loudness(16000).add(mix[0]).rms()
    stream = SpectralStream(net, net.spectrum.framing(), -18.0, level)
    file = separate(net, mix[0], 16000, segment=float("inf"), progress=False)
    torch.testing.assert_close(joined(stream, mix, [777])[0], file, atol=1e-6, rtol=1e-4)


@both_kinds
@torch.no_grad()
def test_a_steady_stream_is_soon_the_file(kind):
    """After a tenth of a second the level is known, and of a network's past nothing else counts."""
    net, mix = level_bound(kind), 0.05 * torch.randn(1, 1, 48000)
    file = separate(net, mix[0], 16000, segment=float("inf"), progress=False)
    live = joined(sepbook.Stream(net), mix, [480])[0]
    error = (live - file)[..., 8000:].square().sum() / file[..., 8000:].square().sum()
    assert error < 1e-2


@both_kinds
@torch.no_grad()
def test_silence_before_the_recording_is_no_level(kind):
    net, mix = level_bound(kind), swelling()
    late = torch.cat([torch.zeros(2, 1, 8000), mix], -1)
    est = joined(sepbook.Stream(net), late, [333])
    assert est.isfinite().all() and not est[..., :7900].any()
    torch.testing.assert_close(est.sum(1), late, atol=1e-5, rtol=1e-4)


def test_the_level_waits_for_nothing():
    net, mix = level_bound(DCCRN), swelling()
    stream, given = sepbook.Stream(net), 0
    for k, block in enumerate(mix.split(100, -1)):
        given += stream(block).shape[-1]
        assert given >= 100 * (k + 1) - stream.latency


def test_the_shipped_denoiser_takes_any_level():
    assert sepbook.Stream("denoise").level_db is None
    assert sepbook.Stream(level_bound(DCCRN)).level_db == -18.0
