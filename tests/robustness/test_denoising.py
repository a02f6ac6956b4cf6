"""Denoisers: what the gains promise, hard inputs, causality, and that benchmarks stay fair."""

import json
import math

import pytest
import torch
from nets import refuses

import sepbook
from sepbook.classical.denoising import (
    GAINS,
    RULES,
    TRACKERS,
    Denoiser,
    decision_directed,
    edit_region,
    first_frames,
    mcra,
    minimum_statistics,
    musical_noise,
    noise_profile,
    spectral_editor,
    speech_presence,
    subtraction_gain,
)
from sepbook.engine.examples import example_noisy, example_readers
from sepbook.metrics import evaluate, si_sdr
from sepbook.stft import stft


def white(seconds=8.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return 0.05 * torch.randn(1, round(seconds * 16000), generator=draw)


def powers(wav):
    return stft(wav, 512, 128, "sqrt_hann").abs().square()


# ---- gains


@pytest.mark.parametrize("xi", [0.03, 0.5, 1.0, 8.0])
@pytest.mark.parametrize("gamma", [0.2, 1.0, 5.0, 30.0])
def test_gains_are_posterior_means(xi, gamma):
    """Each is the mean over what the speech may have been, given the cell."""
    draw = torch.Generator().manual_seed(3)
    share = xi / (1 + xi)
    scatter = torch.randn(400_000, dtype=torch.complex128, generator=draw)
    guess = share * math.sqrt(gamma) + math.sqrt(share) * scatter
    want = (guess.mean().real, guess.abs().mean(), guess.abs().log().mean().exp())
    pair = torch.tensor([xi]).double(), torch.tensor([gamma]).double()
    for (name, gain), drawn in zip(GAINS.items(), want):
        got = float(gain(*pair)) * math.sqrt(gamma)
        assert got == pytest.approx(float(drawn), rel=0.015, abs=0.004), name


def test_gains_keep_their_type_and_never_overflow():
    for dtype in (torch.float32, torch.float64):
        xi = torch.tensor([1e-6, 1.0, 1e6], dtype=dtype)
        for gamma in (1e-6, 1.0, 1e4):
            for name, gain in GAINS.items():
                got = gain(xi, torch.full_like(xi, gamma))
                assert got.dtype == dtype and got.isfinite().all() and (got >= 0).all(), name


def test_subtraction_on_numbers():
    power, noise = torch.tensor([[4.0, 1.0, 0.5]]), torch.ones(1, 1)
    left = lambda *knobs: subtraction_gain(power, noise, *knobs).square() * power
    torch.testing.assert_close(left(2, 1, 0), torch.tensor([[3.0, 0.0, 0.0]]))
    torch.testing.assert_close(left(1, 1, 0), torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(left(2, 3, 0), torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(left(2, 3, 0.5), torch.tensor([[1.0, 0.25, 0.25]]))
    torch.testing.assert_close(left(2, 3, 2.0), power)  # a floor never makes a cell louder


def test_decision_directed_by_hand():
    """Two frames of equation (7) with Wiener's gain."""
    power, noise = torch.tensor([[[2.0, 9.0]]]), torch.ones(1, 1, 1)
    first = 0.9 * 1 + 0.1 * 1
    gain = first / (1 + first)
    second = 0.9 * gain**2 * 2 + 0.1 * 8
    want = torch.tensor([[[gain, second / (1 + second)]]])
    got = decision_directed(power, noise, GAINS["wiener"], smoothing=0.9)
    torch.testing.assert_close(got, want)
    low = decision_directed(torch.full((1, 1, 50), 1e-3), noise, GAINS["wiener"], least=0.1)
    assert low[..., -1].item() == pytest.approx(0.1 / 1.1)


def test_smoothing_tames_musical_noise():
    power = powers(white())
    flat = power.mean(-1, keepdim=True)
    share = lambda gain: musical_noise((gain.square() * power)[..., 60:]).item()
    assert share(torch.ones_like(power)) < 3 * math.exp(-10)
    subtracted = share(subtraction_gain(power, flat))
    assert subtracted > 90 * math.exp(-10)
    assert share(decision_directed(power, flat)) < 0.4 * subtracted
    assert share(decision_directed(power, flat, smoothing=0.0)) > 0.5 * subtracted


# ---- the noise


def test_profile_is_the_mean_power():
    wav = white()
    torch.testing.assert_close(noise_profile(wav), powers(wav).mean(-1))
    whole = noise_profile(wav).mean() / (0.05**2 * 256)  # the squared window sums to 256
    assert whole == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "name, off, by", [("minimum", 0.0, 0.5), ("presence", -1.0, 0.5), ("mcra", 0, 0.3)]
)
def test_trackers_find_a_steady_noise(name, off, by, seed):
    power = powers(white(seed=seed))
    got = 10 * (TRACKERS[name](power)[..., 200:].mean() / power.mean()).log10()
    assert abs(float(got) - off) < by


@pytest.mark.parametrize("name", ["minimum", "presence", "mcra"])
def test_trackers_follow_a_step_and_speech_does_not_fool_them(name):
    wav = white(6.0)
    wav[:, 48000:] *= 10**0.5
    level = 10 * TRACKERS[name](powers(wav)).mean((0, 1)).log10()
    assert float(level[500:740].mean() - level[250:370].mean()) == pytest.approx(10, abs=1)
    noisy = example_noisy("boiler", snr=5)
    truth = powers(noisy.src[1]).mean(-1)
    found = TRACKERS[name](powers(noisy.mix))[..., 100:].mean(-1)
    assert (10 * (found / truth).log10()).abs().median() < 2.5


def test_minimum_statistics_looks_back_only():
    power = powers(white(2.0))
    changed = power.clone()
    changed[..., 150:] = 0
    for track in (minimum_statistics, speech_presence, mcra):
        assert torch.equal(track(power)[..., :150], track(changed)[..., :150])
    plain = minimum_statistics(power, frames=5, smoothing=0.0, bias=1.0)
    torch.testing.assert_close(plain[..., 20], power[..., 16:21].amin(-1))
    assert first_frames(power).shape == (1, 257, 1)


def test_mcra_by_hand():
    """Equation (9) with loops over bands and frames."""
    power = powers(example_noisy("boiler").mix[:, :12000])[0, :6].double()
    bands, frames = power.shape
    near = torch.stack(
        [
            0.25 * power[max(f - 1, 0)] + 0.5 * power[f] + 0.25 * power[min(f + 1, bands - 1)]
            for f in range(bands)
        ]
    )
    noise, p, smooth, want = power[:, :6].mean(1), torch.zeros(bands), [near[:, 0]], []
    for t in range(frames):
        smooth.append(0.8 * smooth[-1] + 0.2 * near[:, t])
        least = torch.stack(smooth[1:][-10:]).amin(0)
        p = 0.2 * p + 0.8 * (smooth[-1] > 5 * least)
        keep = 0.95 + 0.05 * p
        noise = keep * noise + (1 - keep) * power[:, t]
        want.append(noise)
    torch.testing.assert_close(mcra(power, frames=10), torch.stack(want, 1).to(power))


# ---- the separator


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("noise", TRACKERS)
def test_hard_inputs(rule, noise):
    click = torch.zeros(2, 1, 4000)
    click[..., 2000] = 1
    denoiser = Denoiser(rule, noise)
    for mix in (torch.zeros(1, 1, 4000), torch.ones(1, 1, 1), torch.ones(3, 1, 700), click):
        est = denoiser(mix)
        assert est.shape == (len(mix), 2, 1, mix.shape[-1]) and est.isfinite().all()
        torch.testing.assert_close(est.sum(1), mix)


@pytest.mark.parametrize("rule", RULES)
def test_batches_channels_and_precision(rule):
    a, b = (example_noisy(kind).mix[:, :24000] for kind in ("boiler", "babble"))
    alone = torch.stack([Denoiser(rule)(x[None])[0] for x in (a, b)])
    torch.testing.assert_close(Denoiser(rule)(torch.stack([a, b])), alone)
    stereo = Denoiser(rule, channels=2)(torch.cat([a, b])[None])[0]
    torch.testing.assert_close(stereo, torch.cat([alone[0], alone[1]], 1))
    double = Denoiser(rule)(a[None].double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double[0].float(), alone[0], rtol=1e-3, atol=1e-4)


def test_nothing_waits_for_the_future():
    mix = example_noisy("boiler").mix[None]
    cut = mix.clone()
    cut[..., 32000:] = 0
    for rule in RULES:
        both = [Denoiser(rule)(x)[..., : 32000 - 512] for x in (mix, cut)]
        torch.testing.assert_close(*both)


def test_a_loud_word_is_one_frame_late():
    """The first frame passes a fiftieth of the jump; the next knows that the last was loud."""
    power = torch.ones(1, 1, 30)
    power[..., 20:] = 40.0
    gains = 20 * decision_directed(power, torch.ones(1, 1, 1))[0, 0].log10()
    assert gains[19] < -15 and -9 < gains[20] < -6 and gains[21] > -1.5


def test_the_noise_may_be_given_as_numbers():
    mix = example_noisy("boiler").mix[None]
    given = noise_profile(mix[0, 0, :7500])
    want = Denoiser(noise=given)(mix)
    for other in (given.numpy(), given.tolist(), given.double()):
        torch.testing.assert_close(Denoiser(noise=other)(mix), want)


def test_the_shipped_denoiser_is_in_step_with_the_speech():
    """The benchmark takes no delay out of it: there is none, and its level changes nothing."""
    model = sepbook.load("denoise-16k").eval()
    item = example_noisy("boiler", snr=5)
    with torch.no_grad():
        est, quiet = (model(item.mix[None] * scale)[0, 0] for scale in (1.0, 0.05))
    together = torch.fft.rfft(est, 2**17) * torch.fft.rfft(item.src[0], 2**17).conj()
    assert torch.fft.irfft(together)[0].argmax() == 0
    torch.testing.assert_close(quiet * 20, est, rtol=1e-3, atol=1e-4)


def test_it_gains_where_the_noise_is_steady_and_not_between_voices():
    item = example_noisy("boiler", snr=5)
    gain = lambda **how: float(
        si_sdr(Denoiser(**how)(item.mix[None])[0, 0], item.src[0]) - si_sdr(item.mix, item.src[0])
    )
    assert gain() > 3.2 and gain(rule="stsa") > 3.2 and gain(rule="wiener") > 2.8
    assert gain(rule="subtraction", exponent=1.0) > 3.5 and gain(rule="subtraction") > 2.2
    assert gain(noise=noise_profile(item.mix[0, :7500])) > gain()  # knowing is better than guessing
    pair = example_readers(2, 4.0)
    both = Denoiser()(pair.mix[None])[0, 0].expand_as(pair.src)
    assert (si_sdr(both, pair.src) - si_sdr(pair.mix.expand_as(pair.src), pair.src)).max() < 0.5


def test_the_course_runs_it():
    item = example_noisy("boiler")
    table = evaluate(Denoiser(), item, ("si_sdri",)).set_index("source")
    assert table.loc["speech", "si_sdri"] > 3
    est = sepbook.separate(Denoiser(), item.mix, item.sample_rate)
    torch.testing.assert_close(est["speech"] + est["noise"], item.mix, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "how, words",
    [
        ({"rule": "kalman"}, "rule is 'kalman'"),
        ({"noise": "guess"}, "noise is 'guess'"),
        ({"noise": torch.ones(3)}, "give the power of 257 bands"),
        ({"noise": [1.0, 2.0]}, "give the power of 257 bands"),
        ({"noise": torch.full((257,), math.nan)}, "not finite"),
        ({"noise": -torch.ones(257)}, "below zero"),
        ({"least_db": math.nan}, "least_db"),
        ({"smoothing": 1.2}, "smoothing"),
        ({"over": -1}, "over"),
        ({"exponent": 0}, "exponent"),
    ],
)
def test_it_refuses(how, words):
    refuses(lambda: Denoiser(**how), words)


def test_it_refuses_other_shapes():
    refuses(lambda: Denoiser()(torch.zeros(1, 8000)), "pass mix[None]")
    refuses(lambda: Denoiser()(torch.zeros(1, 2, 8000)), "channel")


# ---- the editor


def test_edit_region_cuts_and_sums():
    rate = 16000
    time = torch.arange(2 * rate) / rate
    low, high = (torch.sin(2 * torch.pi * f * time)[None] for f in (500.0, 3000.0))
    stays, goes = edit_region(low + high, (0.0, 2.0), (0.0, 1500.0), rate)
    torch.testing.assert_close(stays + goes, low + high)
    assert si_sdr(goes, low) > 25 and si_sdr(stays, high) > 25
    refuses(lambda: edit_region(low, (1.0, 0.5), (0, 100), rate), "seconds runs from 1.0 to 0.5")
    refuses(lambda: spectral_editor(low, rate, (0, 1), (900, 100)), "hertz runs from 900 to 100")


def test_editor_has_two_sliders():
    box = spectral_editor(example_noisy().mix, 16000, (1.0, 1.5), (0.0, 1000.0))
    assert [child.value for child in box.children[:2]] == [(1.0, 1.5), (0.0, 1000.0)]


# ---- what is kept of the benchmark


def test_kept_figures_hold_the_bar():
    from course import ROOT

    kept = json.loads((ROOT / "results" / "denoise.json").read_text())["systems"]
    ours, package = kept["log-mmse"]["all"], kept["logmmse"]["all"]
    assert ours["si_sdri"] >= package["si_sdri"] and ours["pesq"] >= package["pesq"]
    assert kept["log-mmse"]["babble"]["si_sdri"] < ours["si_sdri"]
    assert {row["kind"] for row in kept.values()} >= {"bound", "classical", "peer"}


def test_kept_times_are_never_slower_and_the_band_above_gains():
    from course import ROOT

    kept = lambda name: json.loads((ROOT / "results" / f"{name}.json").read_text())
    pairs = kept("enhancement")["pairs"]
    assert set(pairs) == {"log-MMSE", "HPSS masks", "REPET-SIM model", "DCUNet-16", "DCCRN"}
    assert all(row["ratio"] >= 1 and row["unequal_share"] < 1e-3 for row in pairs.values())
    for snr, row in kept("band_above")["by_snr"].items():
        shared, as_it_is, out = (row[way] for way in ("shared out", "as it is", "left out"))
        for measure in ("above", "si_sdr"):
            assert shared[measure] > as_it_is[measure] + 2
            assert shared[measure] > out[measure] or snr == "0"
