"""The metrics against the field's own implementations, on signals made here."""

import warnings

import numpy as np
import pytest
import torch
from einops import rearrange

from sepbook.metrics import bss_eval, bss_eval_v4, pesq, score, si_bss_eval, si_sdr, stoi
from sepbook.mixtures import example_song, example_voices


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def leaky(src: torch.Tensor, leak: float = 0.3) -> torch.Tensor:
    """Estimates with interference, noise and a little filtering."""
    return src + leak * src.roll(1, 0) + 0.3 * src.roll(5, -1) + 0.01 * noise(*src.shape, seed=9)


def theirs_v3(est: torch.Tensor, src: torch.Tensor) -> np.ndarray:
    mir_eval = pytest.importorskip("mir_eval")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = mir_eval.separation.bss_eval_sources(src.numpy(), est.numpy(), False)
    return np.stack(scores[:3])


def theirs_v4(est: torch.Tensor, src: torch.Tensor, window: int, hop: int) -> np.ndarray:
    museval = pytest.importorskip("museval")
    axes = "source channel time -> source time channel"
    arrays = [rearrange(x, axes).numpy() for x in (src, est)]
    return np.stack(museval.metrics.bss_eval(*arrays, window=window, hop=hop)[:4])


@pytest.mark.parametrize("n_src", [1, 2, 3])
def test_bss_eval_on_random_signals(n_src):
    src = noise(n_src, 9000)
    got = torch.stack(bss_eval(leaky(src), src)).numpy()
    want = theirs_v3(leaky(src), src)
    assert np.array_equal(np.isinf(got), np.isinf(want))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_bss_eval_on_voices():
    src = example_voices(n_src=3, seconds=3).src[:, 0].double()
    got = torch.stack(bss_eval(leaky(src), src)).numpy()
    np.testing.assert_allclose(got, theirs_v3(leaky(src), src), rtol=0, atol=1e-6)


def test_bss_eval_with_an_offset():
    src = noise(2, 8000) * 0.1 + 0.4
    got = torch.stack(bss_eval(leaky(src), src)).numpy()
    np.testing.assert_allclose(got, theirs_v3(leaky(src), src), rtol=0, atol=1e-6)


@pytest.mark.parametrize("window, hop", [(11025, 11025), (11025, 5000), (22050, 30000)])
def test_bss_eval_v4_on_random_stereo(window, hop):
    src = noise(2, 2, 40000)
    src[:, 1] += 0.5 * src[:, 0]
    got = torch.stack(bss_eval_v4(leaky(src), src, window, hop)).numpy()
    np.testing.assert_allclose(got, theirs_v4(leaky(src), src, window, hop), rtol=0, atol=1e-6)


def test_bss_eval_v4_on_real_stems_with_silence():
    stems = example_song().src[:, :, : 3 * 44100].double()
    src = torch.stack([stems[0], stems[1:].sum(0)])
    src += 1e-5 * noise(*src.shape)  # as 16-bit files have; decoded stems are singular above 16 kHz
    src[0, :, 44100:88200] = 0
    est = leaky(src)
    est[1, :, 88200:] = 0
    got = torch.stack(bss_eval_v4(est, src, 44100, 44100)).numpy()
    want = theirs_v4(est, src, 44100, 44100)
    # a silent source, but the leak sounds: NaN as in museval, in that frame and the last only
    assert np.array_equal(np.isnan(got[0]).all(0), [False, True, True])
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-3)


def test_bss_eval_v4_on_decoded_stems_is_as_close_as_museval_to_itself():
    stems = example_song().src[:, :, : 2 * 44100].double()
    src = torch.stack([stems[0], stems[1:].sum(0)])
    est = leaky(src)
    got = torch.stack(bss_eval_v4(est, src, 44100, 44100)).numpy()
    want = theirs_v4(est, src, 44100, 44100)
    np.testing.assert_allclose(got[:2], want[:2], rtol=0, atol=1e-3)  # SDR, ISR
    np.testing.assert_allclose(got[2:], want[2:], rtol=0, atol=0.1)  # SIR, SAR: rounding decides


def test_dual_mono_stems():
    src = noise(2, 1, 20000).expand(-1, 2, -1).contiguous()
    est = leaky(src)
    got = torch.stack(bss_eval_v4(est, src, 20000)).numpy()
    mono = torch.stack(bss_eval_v4(est[:, :1], src[:, :1], 20000)).numpy()
    assert np.isfinite(got).all()
    # the noise differs per channel, so only roughly the scores of one channel
    np.testing.assert_allclose(got, mono, rtol=0, atol=0.5)


def test_si_sdr_is_bss_eval_with_one_tap():
    src = noise(3, 4000)
    torch.testing.assert_close(bss_eval(leaky(src), src, 1)[0], si_sdr(leaky(src), src))
    torch.testing.assert_close(si_bss_eval(leaky(src), src)[0], si_sdr(leaky(src), src))
    torch.testing.assert_close(si_bss_eval(leaky(src), src)[1], bss_eval(leaky(src), src, 1)[1])


def test_si_sdr_is_its_formula():
    src = noise(2000).numpy()
    est = 0.7 * src + 0.2 * noise(2000, seed=1).numpy()
    target = est @ src / (src @ src) * src
    want = 10 * np.log10((target @ target) / ((est - target) @ (est - target)))
    assert abs(si_sdr(est, src).item() - want) < 1e-10


def test_pesq_and_stoi_are_the_packages():
    itu, taal = pytest.importorskip("pesq"), pytest.importorskip("pystoi")
    src = example_voices(seconds=3).src[:, 0]
    est = src + 0.01 * noise(*src.shape).float()
    for j in range(2):
        s, e = src[j].double().numpy(), est[j].double().numpy()
        assert pesq(est, src, 8000)[j].item() == pytest.approx(itu.pesq(8000, s, e, "nb"), abs=1e-5)
        assert stoi(est, src, 8000)[j].item() == pytest.approx(taal.stoi(s, e, 8000), abs=1e-5)


def test_score_takes_the_medians_of_museval():
    src = noise(2, 2, 30000)
    est = leaky(src)
    table = score(est, src, src.sum(0), ("v4",), sample_rate=8000)
    want = np.nanmedian(theirs_v4(est, src, 8000, 8000), axis=-1)
    got = table[["v4_sdr", "v4_isr", "v4_sir", "v4_sar"]].to_numpy().T
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
