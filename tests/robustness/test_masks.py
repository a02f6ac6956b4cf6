"""Masks under hostile input: silence, tiny and huge values, odd lengths, many axes, gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbook.masks import (
    MASKS,
    apply_mask,
    box_mask,
    cut_box,
    ideal_amplitude_mask,
    ideal_binary_mask,
    ideal_ratio_mask,
    mask_editor,
    oracle,
    phase_sensitive_mask,
    wiener_mask,
)

quick = settings(max_examples=40)
seeds = st.integers(0, 2**31 - 1)
levels = st.sampled_from([0.0, 1e-40, 1e-30, 1e-12, 1.0, 1e12, 1e30])
shapes = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 9), st.integers(1, 7))


def spectra(seed, shape, gains=(1.0,), dtype=torch.complex64):
    """Complex noise, each bin scaled by one of `gains`, some silent in all sources."""
    generator = torch.Generator().manual_seed(seed)
    spec = torch.randn(shape, dtype=dtype, generator=generator)
    choice = torch.randint(len(gains), shape, generator=generator)
    spec = spec * torch.tensor(gains, dtype=spec.real.dtype)[choice]
    silent = torch.rand(shape[-3:], generator=generator) < 0.2
    return spec.masked_fill(silent, 0)


@quick
@given(seeds, shapes, st.lists(levels, min_size=1, max_size=4), st.sampled_from([1.0, 2.0, 0.5]))
def test_shares_are_in_range_and_sum_to_one(seed, shape, gains, power):
    src = spectra(seed, shape, gains)
    for mask in (ideal_ratio_mask(src, power), wiener_mask(src), ideal_binary_mask(src)):
        assert mask.shape == src.shape and mask.dtype == torch.float32
        assert mask.min() >= 0 and mask.max() <= 1
        torch.testing.assert_close(mask.sum(-4), torch.ones(shape[1:]), atol=1e-5, rtol=0)
    kept = (ideal_binary_mask(src) * src.abs()).sum(-4)
    torch.testing.assert_close(kept, src.abs().amax(-4))


@quick
@given(seeds, shapes)
def test_silence_is_shared_equally(seed, shape):
    src = torch.zeros(shape, dtype=torch.complex64)
    for name, make in MASKS.items():
        mask = make(src, src.sum(-4))
        assert torch.isfinite(torch.view_as_real(mask + 0j)).all()
        if name != "ibm":
            torch.testing.assert_close(mask.real, torch.full(shape, 1 / shape[0]))
        else:
            assert (mask[0] == 1).all() and (mask[1:] == 0).all()


@quick
@given(seeds, shapes, st.sampled_from([1e-15, 1e-3, 1e6, 1e15]))
def test_masks_ignore_the_volume(seed, shape, gain):
    src = spectra(seed, shape)
    for name, make in MASKS.items():
        mask, louder = make(src, src.sum(-4)), make(src * gain, (src * gain).sum(-4))
        torch.testing.assert_close(mask, louder, atol=1e-3, rtol=1e-3, msg=name)


@quick
@given(seeds, shapes)
def test_no_real_mask_beats_the_phase_sensitive_one(seed, shape):
    src = spectra(seed, shape, dtype=torch.complex128)
    mix = src.sum(-4)
    error = lambda mask: (src - apply_mask(mask, mix)).abs().square()
    best = error(phase_sensitive_mask(src, mix))
    generator = torch.Generator().manual_seed(seed)
    rivals = [MASKS[name](src, mix) for name in ("ibm", "irm", "wiener", "iam", "npsm")]
    rivals.append(torch.randn(shape, generator=generator, dtype=torch.float64))
    assert all((error(rival) >= best - 1e-9).all() for rival in rivals)


@quick
@given(seeds, shapes)
def test_amplitude_masks_sum_to_at_least_one(seed, shape):
    src = spectra(seed, shape, dtype=torch.complex128)
    assert (ideal_amplitude_mask(src).sum(-4) >= 1 - 1e-9).all()


@quick
@given(seeds, shapes, st.lists(levels, min_size=1, max_size=3))
def test_gradients_are_finite(seed, shape, gains):
    src = spectra(seed, shape, [g for g in gains if g <= 1] or [1.0]).requires_grad_()
    (ideal_ratio_mask(src)[0].sum() + wiener_mask(src)[0].square().sum()).backward()
    assert torch.isfinite(torch.view_as_real(src.grad)).all()


@pytest.mark.parametrize("name", [n for n in MASKS if n != "ibm"])
def test_gradients_through_the_oracle(name):
    src = torch.randn(2, 1, 2001, generator=torch.Generator().manual_seed(0), requires_grad=True)
    silent = torch.cat([src[..., :1000], torch.zeros(2, 1, 1001)], -1)
    oracle(silent.sum(0), silent, name, 128).square().sum().backward()
    assert torch.isfinite(src.grad).all()


@quick
@given(seeds, st.integers(65, 999), st.sampled_from(sorted(MASKS)), st.sampled_from([64, 128, 127]))
def test_oracle_keeps_any_length(seed, length, name, n_fft):
    src = torch.randn(3, 2, length, generator=torch.Generator().manual_seed(seed))
    est = oracle(src.sum(0), src, name, n_fft)
    assert est.shape == src.shape and torch.isfinite(est).all()
    if name in ("ibm", "irm", "wiener", "psm"):
        torch.testing.assert_close(est.sum(0), src.sum(0), atol=1e-3, rtol=0)


def test_batches_and_precision():
    src = torch.randn(4, 3, 2, 3001, dtype=torch.float64)
    for name in MASKS:
        est = oracle(src.sum(1), src, name, 256)
        assert est.dtype == torch.float64
        one = torch.stack([oracle(s.sum(0), s, name, 256) for s in src])
        torch.testing.assert_close(est, one)


def test_oracle_of_silence_is_silence():
    for name in MASKS:
        assert (oracle(torch.zeros(1, 1000), torch.zeros(2, 1, 1000), name, 128) == 0).all()


def test_stereo_masks_are_made_per_channel():
    src = torch.randn(2, 2, 2000)
    for name in MASKS:
        both = oracle(src.sum(0), src, name, 128)
        left = oracle(src[:, :1].sum(0), src[:, :1], name, 128)
        torch.testing.assert_close(both[:, :1], left)


def test_one_channel_serves_all():
    mask, mix = torch.rand(2, 1, 65, 10), torch.randn(2, 65, 10, dtype=torch.complex64)
    torch.testing.assert_close(apply_mask(mask, mix), mask * mix[None])


wave, spec = torch.randn(2, 1, 1000), torch.randn(2, 1, 65, 10, dtype=torch.complex64)
MISTAKES = {
    "unknown name": (lambda: oracle(wave.sum(0), wave, "best"), "ibm, irm"),
    "no source axis": (lambda: oracle(wave[0], wave[0]), "source, channel, time"),
    "sources as channels": (lambda: oracle(wave.sum(0), wave.transpose(0, 1)), "source, channel"),
    "other length": (lambda: oracle(wave.sum(0)[..., :-1], wave), "source, channel, time"),
    "NaN in src": (lambda: oracle(wave.sum(0), wave * torch.nan, n_fft=128), "NaN"),
    "too short": (lambda: oracle(wave.sum(0)[..., :20], wave[..., :20]), "n_fft"),
    "three axes": (lambda: ideal_ratio_mask(spec[0]), "unsqueeze"),
    "empty": (lambda: wiener_mask(spec[:0]), "empty"),
    "other mixture": (lambda: phase_sensitive_mask(spec, spec), "source axis"),
    "magnitudes": (lambda: phase_sensitive_mask(spec.abs()), "complex"),
    "infinite": (lambda: ideal_binary_mask(spec / 0), "infinity"),
    "power": (lambda: ideal_ratio_mask(spec, power=0), "above 0"),
    "other frames": (lambda: apply_mask(spec.abs(), spec[0, ..., :5]), "frame"),
    "reversed box": (lambda: cut_box(wave[0], (1, 0), (0, 1), 8000, n_fft=128, hop=32), "first"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_end_in_one_line(what):
    call, part = MISTAKES[what]
    with pytest.raises(ValueError, match=part) as error:
        call()
    assert "\n" not in str(error.value)


def test_box_geometry():
    mask = box_mask(11, (0.1, 0.2), (1000, 2000), 8000, n_fft=8, hop=400)
    assert mask.shape == (5, 11)
    assert mask.nonzero().tolist() == [[f, t] for f in (1, 2) for t in (2, 3, 4)]
    assert (mask + box_mask(11, (0.1, 0.2), (1000, 2000), 8000, 8, 400, keep=False) == 1).all()


@quick
@given(seeds, st.integers(200, 900), st.booleans())
def test_kept_and_removed_make_the_whole(seed, length, keep):
    wav = torch.randn(2, length, generator=torch.Generator().manual_seed(seed))
    box = dict(seconds=(0.01, 0.05), hertz=(500, 1500), sample_rate=8000, n_fft=128, hop=32)
    torch.testing.assert_close(cut_box(wav, **box) + cut_box(wav, **box, keep=False), wav)


def test_editor_has_its_controls():
    pytest.importorskip("ipywidgets")
    import matplotlib

    matplotlib.use("agg")
    editor = mask_editor(0.1 * torch.randn(1, 8000), 8000, 256, 64)
    seconds, hertz, keep, _ = editor.children
    assert tuple(seconds.value) == (0, 1.0) and tuple(hertz.value) == (0, 4000.0)
    assert [value for _, value in keep.options] == [True, False]
