"""Repetition: medians equal to NumPy's and SciPy's, planted periods, and hard inputs."""

import numpy as np
import pytest
import torch
from nets import refuses
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import median_filter

import sepbook
from sepbook.classical.repet import (
    HPSS,
    KINDS,
    HPSSRepet,
    Repet,
    adaptive_model,
    background_mask,
    beat_spectrum,
    harmonic_percussive_masks,
    local_periods,
    repeating_model,
    repeating_period,
    similar_frames,
    similar_model,
    soft_mask,
)
from sepbook.engine.examples import example_made, example_song, example_track
from sepbook.engine.medians import comparators, median, median_steps, middle, sliding_median
from sepbook.metrics import si_sdr


def planted(seed, frames=270, period=40, bands=60):
    """A background that repeats exactly, and a foreground in a tenth of the cells."""
    draw = torch.Generator().manual_seed(seed)
    base = torch.rand(bands, period, generator=draw).repeat(1, frames // period + 1)[:, :frames]
    return base, (torch.rand(bands, frames, generator=draw) < 0.1) * 1.0


# ---- medians


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 28, 31, 100])
def test_median_equals_numpy(count):
    draw = torch.Generator().manual_seed(count)
    x = torch.randn(3, 2, count, 17, generator=draw)
    assert np.array_equal(median(x).numpy(), np.median(x.numpy(), axis=-2))
    assert median(x.double()).dtype == torch.float64


@pytest.mark.parametrize("size", [1, 3, 17, 31])
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (9, 20), (3, 40, 33)])
def test_sliding_median_by_numpy_and_scipy(size, shape):
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(size))
    for along, axis in ((True, -1), (False, -2)):
        wide = [(0, 0)] * x.ndim
        wide[axis] = (size // 2, size // 2)
        padded = np.pad(x.numpy(), wide, "symmetric")
        want = np.median(sliding_window_view(padded, size, axis), axis=-1)
        got = sliding_median(x, size, along).numpy()
        assert np.array_equal(got, want)
        window = [1] * x.ndim
        window[axis] = size
        if x.shape[axis] > size:  # SciPy errs in some cells of an axis much shorter than the window
            assert np.array_equal(got, median_filter(x.numpy(), window, mode="reflect"))
    assert sliding_median(x, 4).shape == x.shape
    refuses(lambda: sliding_median(x, 0), "size")


def test_comparators_sort_every_row_of_zeros_and_ones():
    """A network that sorts all rows of zeros and ones sorts everything (the 0-1 principle)."""
    for count in range(1, 11):
        rows = (torch.arange(2**count)[:, None] >> torch.arange(count)) & 1
        rows = list(rows.float().unbind(1))
        for a, b in comparators(count):
            rows[a], rows[b] = torch.minimum(rows[a], rows[b]), torch.maximum(rows[a], rows[b])
        assert (torch.stack(rows).diff(dim=0) >= 0).all()
    assert len(median_steps(31)) < len(comparators(31))


def test_median_passes_gradients_and_changes_no_input():
    x = torch.randn(5, 4, requires_grad=True)
    middle(tuple(x.unbind(0))).sum().backward()
    assert x.grad.sum() == 4 and ((x.grad == 0) | (x.grad == 1)).all()
    kept = x.detach().clone()
    median(kept)
    sliding_median(kept, 3)
    assert torch.equal(kept, x.detach())


# ---- REPET


def test_beat_spectrum_is_the_autocorrelation():
    mag = torch.rand(7, 30, generator=torch.Generator().manual_seed(0)).double()
    power = mag.square()
    want = torch.stack([(power[:, : 30 - k] * power[:, k:]).mean() for k in range(30)])
    torch.testing.assert_close(beat_spectrum(mag), want / want[0])
    assert not beat_spectrum(torch.zeros(7, 30)).any()
    for level in (1e-12, 1e12):  # the fourth powers of these are no float32
        quiet = beat_spectrum(mag.float() * level)
        torch.testing.assert_close(quiet.double(), want / want[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_planted_period(seed):
    base, sparse = planted(seed)
    assert repeating_period(beat_spectrum(base + sparse), 10, 60) == 40
    model = repeating_model(base + sparse, 40)
    assert ((model - base).abs() < 1e-6).double().mean() > 0.95
    mean = (base + sparse)[:, :240].unflatten(-1, (6, 40)).mean(-2)
    assert (model - base).abs().mean() < 0.1 * (mean - base[:, :40]).abs().mean()


@pytest.mark.parametrize("frames, period", [(10, 3), (12, 4), (7, 7), (9, 5), (20, 1)])
def test_repeating_model_by_numpy(frames, period):
    mag = torch.rand(2, 3, frames, generator=torch.Generator().manual_seed(period))
    want = [np.median(mag[..., t % period :: period].numpy(), axis=-1) for t in range(frames)]
    got = repeating_model(mag, period)
    assert np.array_equal(got.numpy(), np.stack(want, -1).astype(np.float32))
    refuses(lambda: repeating_model(mag, 0), "period")
    refuses(lambda: repeating_model(mag, frames + 1), "period")


def test_period_limits():
    beat = torch.tensor([1.0, 0.9, 0.2, 0.8, 0.1, 0.95, 0.3, 0.2, 0.1, 0.0, 0.0, 0.0])
    assert repeating_period(beat, 1, 12) == 1  # lag 5 is more than a third
    assert repeating_period(beat, 2, 12) == 3
    assert repeating_period(beat, 9, 12) == 4  # nothing as long fits: the longest that does
    refuses(lambda: repeating_period(beat[:2], 1, 1), "no three repetitions")


def test_adaptive_follows_a_change_of_period():
    first, _ = planted(0, 300, 30)
    second, _ = planted(1, 300, 50)
    mag = torch.cat([first, second], 1)
    periods = local_periods(mag, 10, 60, window=200, step=100)
    assert periods[:100].unique().tolist() == [30] and periods[-100:].unique().tolist() == [50]
    error = (adaptive_model(mag, periods) - mag).abs()
    assert error[:, 80:120].max() == 0 and error[:, 480:520].max() == 0
    fixed = torch.full((300,), 30)
    torch.testing.assert_close(adaptive_model(first, fixed), first)


def test_similar_frames_are_the_nearest_far_enough():
    mag = torch.rand(2, 9, 80, generator=torch.Generator().manual_seed(0))
    got = similar_frames(mag, 7, 6)
    flat = mag.flatten(0, 1).mT
    unit = flat / flat.norm(dim=-1, keepdim=True)
    alike = unit @ unit.mT
    away = (torch.arange(80)[:, None] - torch.arange(80)).abs()
    alike[away < 7] = -1
    assert torch.equal(got, alike.topk(6).indices)
    assert similar_frames(mag, 7).shape == (80, 2 * 9)  # 2 ceil(sqrt(80 - 14 + 1))
    want = np.median(mag[..., got].numpy(), axis=-1)
    assert np.array_equal(similar_model(mag, got).numpy(), want)
    refuses(lambda: similar_frames(mag, 40), "allow 1 to 39")
    refuses(lambda: similar_frames(mag, 0), "allow 1 to 39")


def test_masks_in_silence_and_sound():
    mag = torch.tensor([0.0, 2.0, 2.0, 1e-30])
    torch.testing.assert_close(
        background_mask(torch.tensor([0.0, 1.0, 3.0, 0.0]), mag)[:3], torch.tensor([1.0, 0.5, 1.0])
    )
    one, other = torch.tensor([0.0, 3.0, 1e-25]), torch.tensor([0.0, 4.0, 1e-25])
    torch.testing.assert_close(soft_mask(one, other), torch.tensor([0.5, 9 / 25, 0.5]))
    torch.testing.assert_close(soft_mask(one, other, 1.0), torch.tensor([0.5, 3 / 7, 0.5]))


def test_lines_and_strokes_part():
    mag = torch.full((64, 64), 0.01)
    mag[20, :] = 1.0
    mag[:, 40] = 1.0
    harmonic, percussive = harmonic_percussive_masks(mag, 15, 15)
    assert harmonic[20, 5] > 0.99 and percussive[5, 40] > 0.99
    torch.testing.assert_close(harmonic + percussive, torch.ones(64, 64))


# ---- separators

SYSTEMS = [*(Repet(22050, 1, kind=kind) for kind in KINDS), HPSS(22050, 1), HPSSRepet(22050, 1)]


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: getattr(s, "kind", type(s).__name__))
def test_sums_batches_and_hard_inputs(system):
    click = torch.zeros(1, 1, 30000)
    click[..., 15000] = 1
    for mix in (torch.zeros(1, 1, 30000), torch.ones(1, 1, 1), click, torch.randn(2, 1, 40000)):
        est = system(mix)
        assert est.shape == (len(mix), len(system.sources), 1, mix.shape[-1])
        assert est.isfinite().all()
        torch.testing.assert_close(est.sum(1), mix, rtol=1e-4, atol=1e-5)
    both = torch.randn(2, 1, 40000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(system(both)[1:], system(both[1:]), rtol=1e-3, atol=1e-5)
    refuses(lambda: system(torch.zeros(1, 40000)), "pass mix[None]")
    refuses(lambda: system(torch.zeros(1, 2, 40000)), "channel")


def test_repet_refuses():
    refuses(lambda: Repet(kind="loop"), "kind is 'loop'")
    refuses(lambda: Repet(window=-1), "window is -1")
    refuses(lambda: Repet(least=float("nan")), "least is nan")
    refuses(lambda: Repet(least=5, most=1), "least is 5, but must be at most 1")
    refuses(lambda: Repet(lowest=-100), "lowest is -100")
    refuses(lambda: HPSS(frames=0), "frames is 0")
    refuses(lambda: HPSS(bands=2.5), "bands is 2.5")
    refuses(lambda: HPSS(power=0), "power is 0")


def gains(system, item, target):
    est = system(item.mix[None])[0]
    return (si_sdr(est, target) - si_sdr(item.mix.expand_as(target), target)).mean(-1)


@pytest.mark.parametrize("example", [example_song, example_made, example_track])
def test_gains_on_songs(example):
    """The voice, the drums and the three stems of 2012 gain what they gained."""
    item = example()
    stem = lambda name: item.src[item.sources.index(name)]
    how = {"sample_rate": item.sample_rate, "channels": len(item.mix)}
    pair = torch.stack([item.mix - stem("vocals"), stem("vocals")])
    for kind in KINDS:
        assert gains(Repet(**how, kind=kind), item, pair)[1] > 2
    three = torch.stack([stem("drums"), stem("vocals"), item.mix - stem("drums") - stem("vocals")])
    drums, vocals, _ = gains(HPSSRepet(**how), item, three)
    assert drums > 1 and vocals > 2.5


def test_the_voice_has_nothing_below_100_hz():
    time = torch.arange(44100) / 22050
    low = torch.sin(2 * torch.pi * 60 * time)[None, None] * torch.linspace(0, 1, 44100)
    est = Repet(22050, 1)(low)[0]
    assert est[1].square().mean() < 1e-3 * low.square().mean()


def test_the_course_runs_it():
    item = example_track()
    est = sepbook.separate(Repet(22050, 1), item.mix, 22050)
    torch.testing.assert_close(
        est["background"] + est["foreground"], item.mix, rtol=1e-3, atol=1e-4
    )
