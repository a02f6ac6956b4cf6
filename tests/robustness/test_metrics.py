"""Silence, bad input, odd shapes: the metrics answer with a number or with one line that helps."""

import math

import pytest
import torch

from sepbook.metrics import (
    METRICS,
    bss_eval,
    bss_eval_v4,
    evaluate,
    pesq,
    score,
    si_sdr,
    si_sdr_improvement,
    snr,
    stoi,
    summarize,
)
from sepbook.mixtures import example_voices


def noise(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient(metric, est, src) -> tuple[torch.Tensor, torch.Tensor]:
    est = est.clone().requires_grad_()
    value = metric(est, src)
    (grad,) = torch.autograd.grad(value, est)
    return value.detach(), grad


sound, silence = 0.1 * noise(8000), torch.zeros(8000, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("metric", [snr, si_sdr])
@pytest.mark.parametrize("est", [sound, silence, 1e-8 * sound, 1e3 * sound])
@pytest.mark.parametrize("src", [sound, silence, 1e-6 * sound, sound.flip(0)])
def test_always_finite(metric, est, src, dtype):
    value, grad = gradient(metric, est.to(dtype), src.to(dtype))
    assert value.dtype == grad.dtype == dtype
    assert torch.isfinite(value) and torch.isfinite(grad).all()


@pytest.mark.parametrize("metric", [snr, si_sdr])
@pytest.mark.parametrize("level", [1.0, 1e-2, 1e-4])
def test_silent_source_teaches_silence(metric, level):
    value, grad = gradient(metric, level * sound, silence)
    assert value < 0
    assert torch.cosine_similarity(grad, -sound, dim=0) > 0.999
    quieter = metric(0.5 * level * sound, silence)
    assert quieter > value  # every dB counts


@pytest.mark.parametrize("metric", [snr, si_sdr])
def test_silent_estimate_leaves_silence(metric):
    value, grad = gradient(metric, silence, sound)
    assert value.abs() < 1e-6  # 0 dB
    assert torch.cosine_similarity(grad, sound, dim=0) > 0.999
    assert metric(silence + 0.001 * grad / grad.norm() * sound.norm(), sound) > value


def test_climbing_out_of_silence():
    est = silence.clone().requires_grad_()
    optimiser = torch.optim.Adam([est], lr=1e-3)
    for _ in range(200):
        optimiser.zero_grad()
        (-si_sdr(est, sound)).backward()
        optimiser.step()
    assert si_sdr(est.detach(), sound) > 10


def test_both_silent_and_perfect_have_no_gradient_to_follow():
    for pair in ((silence, silence), (sound, sound)):
        for metric in (snr, si_sdr):
            value, grad = gradient(metric, *pair)
            assert torch.isfinite(value) and grad.norm() < 1e-3
    assert snr(sound, sound) == si_sdr(sound, sound) == pytest.approx(120)


def test_silent_items_do_not_disturb_their_batch():
    est, src = noise(3, 2, 4000), noise(3, 2, 4000, seed=1)
    want = si_sdr(est, src)
    src[1, 0] = 0
    got = si_sdr(est, src)
    keep = torch.ones(3, 2, dtype=torch.bool)
    keep[1, 0] = False
    assert torch.equal(got[keep], want[keep]) and got[1, 0] < -60


def test_bss_eval_is_nan_where_silent_and_measures_the_rest():
    src = noise(3, 4000)
    est = src + 0.1 * noise(3, 4000, seed=1)
    silenced = src.clone()
    silenced[1] = 0
    scores = torch.stack(bss_eval(est, silenced, 32))
    assert scores[:, 1].isnan().all() and scores[:, [0, 2]].isfinite().all()
    pair = torch.stack(bss_eval(est[[0, 2]], src[[0, 2]], 32))
    torch.testing.assert_close(scores[:, [0, 2]], pair)
    est[0] = 0
    scores = torch.stack(bss_eval(est, src, 32))
    assert scores[:, 0].isnan().all() and scores[:, 1:].isfinite().all()


def test_bss_eval_v4_of_a_silent_source_is_nan():
    src = noise(2, 2, 4000)
    src[0] = 0
    scores = torch.stack(bss_eval_v4(src + 0.1, src, 1000, filter_length=16))
    assert scores.shape == (4, 2, 4) and scores.isnan().all()


def test_equal_sources_do_not_crash():
    src = noise(1, 4000).repeat(2, 1)
    est = src + 0.1 * noise(2, 4000, seed=1)
    sdr, _, sar = bss_eval(est, src, 32)
    assert torch.isfinite(sdr).all() and torch.isfinite(sar).all()
    assert abs(sdr[0] - 20) < 1


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: snr(sound[:10], sound), "same sources"),
        (lambda: si_sdr(sound, sound[None]), "same sources"),
        (lambda: snr(sound * math.nan, sound), "NaN"),
        (lambda: si_sdr(sound, sound * math.inf), "NaN or infinity"),
        (lambda: snr(torch.zeros(2, 0), torch.zeros(2, 0)), "empty"),
        (lambda: snr(noise(4000, 2), noise(4000, 2)), "transpose"),
        (lambda: snr(torch.fft.fft(sound), torch.fft.fft(sound)), "istft"),
        (lambda: si_sdr_improvement(noise(2, 1, 100), noise(2, 1, 100), noise(1, 99)), "mix"),
        (lambda: bss_eval(noise(4000, 2), noise(4000, 2)), "transpose"),
        (lambda: bss_eval(sound, sound), "source, time"),
        (lambda: bss_eval(noise(2, 400), noise(2, 400)), "filter_length"),
        (lambda: bss_eval(noise(3, 4000), noise(2, 4000)), "same sources"),
        (lambda: bss_eval(noise(2, 4000) * math.nan, noise(2, 4000)), "est holds NaN"),
        (lambda: bss_eval(noise(0, 4000), noise(0, 4000)), "empty"),
        (lambda: bss_eval_v4(noise(2, 4000), noise(2, 4000)), "channel"),
        (lambda: bss_eval_v4(noise(2, 4000, 2), noise(2, 4000, 2)), "transpose"),
        (lambda: bss_eval_v4(noise(2, 2, 4000), noise(2, 2, 4000), 44100), "window=None"),
        (lambda: bss_eval_v4(noise(2, 2, 4000), noise(2, 2, 4000), 1000, 0), "hop"),
        (lambda: pesq(sound, sound, 44100), "8000 and 16000"),
        (lambda: pesq(sound[:1000], sound[:1000], 8000), "0.25 s"),
    ],
)
def test_bad_input_is_one_line_that_helps(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_nan_passes_through_where_gradients_flow():
    est = (sound * math.nan).requires_grad_()
    assert si_sdr(est, sound).isnan() and snr(est, sound).isnan()


def test_shapes_arrays_and_types():
    est, src = noise(2, 3, 1, 500), noise(2, 3, 1, 500, seed=1)
    for metric in (snr, si_sdr):
        whole = metric(est, src)
        assert whole.shape == (2, 3, 1)
        assert metric(est[0, 1, 0], src[0, 1, 0]) == pytest.approx(whole[0, 1, 0].item())
        assert isinstance(metric(est.numpy(), src.numpy()), torch.Tensor)
        assert metric(est.float(), src.float()).dtype == torch.float32
    mix = src.sum(1)
    gain = si_sdr_improvement(est, src, mix)
    torch.testing.assert_close(gain[1, 2], si_sdr(est[1, 2], src[1, 2]) - si_sdr(mix[1], src[1, 2]))
    assert bss_eval(est[0, :, 0].float(), src[0, :, 0].float(), 4)[0].dtype == torch.float32


def test_square_batches_match_the_right_mixture():
    src = noise(2, 2, 1, 400)
    mix = src.sum(1)
    gain = si_sdr_improvement(src + 0.1, src, mix)
    want = si_sdr(src[0, 1] + 0.1, src[0, 1]) - si_sdr(mix[0], src[0, 1])
    torch.testing.assert_close(gain[0, 1], want)


def test_silent_speech_is_nan():
    voice = example_voices(seconds=2).src[0]
    for metric in (pesq, stoi):
        assert metric(torch.zeros_like(voice), voice, 8000).isnan().all()
        assert metric(voice, torch.zeros_like(voice), 8000).isnan().all()


class Fixed:
    """A separator that hands back fixed shares of the mixture."""

    sample_rate, channels, sources = 8000, 1, ("s1", "s2")

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def __call__(self, mix):
        return torch.stack([mix * (k + 1) / 3 for k in range(len(self.sources))], 1)


class Data(list):
    sample_rate, sources = 8000, None


def test_evaluate_counts_items_and_sources():
    pairs = [example_voices(seconds=1, seed=k) for k in range(3)]
    table = evaluate(Fixed(), pairs, METRICS)
    assert list(table.columns[:2]) == ["item", "source"] and len(table) == 6
    assert list(table.item) == [0, 0, 1, 1, 2, 2] and list(table.source[:2]) == ["s1", "s2"]
    assert {"snr", "si_sdri", "sdr", "sir", "sar", "sdri", "v4_sdr", "pesq", "stoi"} <= set(table)
    assert table.si_sdri.abs().max() < 1e-6  # a share of the mixture is the mixture
    summary = summarize(table)
    assert set(summary.source) == {"s1", "s2", "all"}
    assert (summary[summary.metric == "snr"]["items"] == 3).all()


def test_evaluate_finds_the_permutation_and_the_names():
    pair = example_voices(seconds=1)

    class Swapped(Fixed):
        def __call__(self, mix):
            return pair.src.flip(0)[None]

    assert (evaluate(Swapped(), pair).si_sdr > 100).all()
    swapped = Swapped(sources=("loud", "soft"))
    assert (evaluate(swapped, [(pair.mix, pair.src)]).si_sdr < 10).all()
    named = Data([(pair.mix, pair.src)])
    named.sources = ("soft", "loud")
    assert (evaluate(swapped, named).si_sdr > 100).all()
    one = Fixed(sources=("loud",))
    assert list(evaluate(one, named).source) == ["loud"]


def test_evaluate_leaves_no_graph_and_skips_silent_sources():
    src = torch.stack([noise(1, 8000, dtype=torch.float32), torch.zeros(1, 8000)])

    class Learns(Fixed):
        gain = torch.nn.Parameter(torch.tensor(0.5))

        def __call__(self, mix):
            est = super().__call__(mix) * self.gain
            assert not est.requires_grad
            return est

    table = evaluate(Learns(sources=("a", "b")), [(src.sum(0), src)], ("snr", "si_sdr", "sdr"))
    assert table.loc[0, ["snr", "si_sdr"]].notna().all()
    assert table.loc[1, ["snr", "si_sdr", "sdr"]].isna().all()


@pytest.mark.parametrize(
    "separator, changes, words",
    [
        (Fixed(sample_rate=16000), {}, "16000 Hz.*8000 Hz"),
        (Fixed(channels=2), {}, "2 channels"),
        (Fixed(sources=("vocals", "rest")), {"sources": ("x", "y")}, "vocals"),
        (Fixed(), {"metrics": ("sdrr",)}, "no metric"),
        (Fixed(), {"swap": True}, "channel, time"),
        (lambda mix: mix, {}, "instead of"),
        (lambda mix: mix[:, None].repeat(1, 2, 1, 1) * math.nan, {}, "NaN"),
        (Fixed(), {"empty": True}, "empty"),
    ],
)
def test_evaluate_refuses_what_does_not_fit(separator, changes, words):
    pair = example_voices(seconds=1)
    mix, src = pair.mix, pair.src
    if "swap" in changes:
        mix, src = mix.mT, src.mT
    data = Data([] if "empty" in changes else [(mix, src)])
    data.sources = changes.get("sources")
    with pytest.raises(ValueError, match=words) as caught:
        evaluate(separator, data, changes.get("metrics", ("snr",)))
    assert "\n" not in str(caught.value)


def test_metrics_that_need_a_rate_say_so():
    src = noise(2, 1, 8000)
    with pytest.raises(ValueError, match="sample_rate="):
        score(src, src, src.sum(0), ("stoi",))


def test_v4_whole_signal_and_float64():
    src = noise(2, 1, 3000)
    scores = bss_eval_v4(src + 0.1 * src.flip(0), src, None, filter_length=8)
    assert all(x.shape == (2, 1) and x.dtype == torch.float64 for x in scores)
    assert torch.isfinite(torch.stack(scores)).all()
