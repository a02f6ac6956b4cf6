"""Our STFT against torch's and librosa's, over many settings."""

import itertools

import librosa
import numpy as np
import pytest
import scipy.signal
import torch

from sepbook.stft import griffin_lim, istft, make_window, spectral_convergence, stft

SETTINGS = list(itertools.product((512, 511, 400), (None, 100, 37), (None, 300)))


def noise(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def relative(got, want):
    assert got.shape == want.shape
    return ((got - want).abs().max() / want.abs().max()).item()


@pytest.mark.parametrize("length", [2, 15, 512])
def test_windows_equal_scipy(length):
    for ours, theirs in (
        ("hann", "hann"),
        ("hamming", "hamming"),
        ("blackman", "blackman"),
        ("rect", "boxcar"),
    ):
        want = torch.from_numpy(scipy.signal.get_window(theirs, length, fftbins=True))
        got = make_window(ours, length, dtype=torch.float64)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", ["hann", "sqrt_hann", "hamming", "blackman", "rect"])
@pytest.mark.parametrize("n_fft, hop, win_length", SETTINGS)
@pytest.mark.parametrize("center", [True, False])
def test_stft_equals_torch(n_fft, hop, win_length, window, center):
    wav = noise(2, 3, 2, 3001)
    w = make_window(window, win_length or n_fft, dtype=wav.dtype)
    how = {
        "hop_length": hop or (win_length or n_fft) // 4,
        "win_length": win_length,
        "center": center,
    }
    want = torch.stft(wav.flatten(0, 2), n_fft, window=w, return_complex=True, **how)
    got = stft(wav, n_fft, hop, window, center, win_length=win_length)
    assert got.shape[:3] == (2, 3, 2)
    assert relative(got.flatten(0, 2), want) <= 1e-14
    single = stft(wav.float(), n_fft, hop, window, center, win_length=win_length)
    assert single.dtype == torch.complex64
    assert relative(single.flatten(0, 2), want) <= 1e-6


@pytest.mark.parametrize("pad_mode", ["reflect", "constant", "replicate", "circular"])
@pytest.mark.parametrize("normalized", [False, True])
def test_padding_and_normalisation_equal_torch(pad_mode, normalized):
    wav, w = noise(2, 2001), torch.hann_window(256, dtype=torch.float64)
    want = torch.stft(
        wav, 256, 64, window=w, pad_mode=pad_mode, normalized=normalized, return_complex=True
    )
    got = stft(wav, 256, 64, pad_mode=pad_mode, normalized=normalized)
    assert relative(got, want) <= 1e-14
    back = istft(got, 2001, hop=64, normalized=normalized)
    want = torch.istft(want, 256, 64, window=w, normalized=normalized, length=2001)
    assert relative(back, want) <= 1e-12


@pytest.mark.parametrize("window", ["hann", "hamming", "blackman"])
@pytest.mark.parametrize("n_fft, hop, win_length", SETTINGS)
@pytest.mark.parametrize("center", [True, False])
def test_stft_equals_librosa(n_fft, hop, win_length, window, center):
    wav = noise(2, 3001)
    how = {"hop_length": hop, "win_length": win_length, "center": center, "pad_mode": "reflect"}
    want = librosa.stft(wav.numpy(), n_fft=n_fft, window=window, **how)
    got = stft(wav, n_fft, hop, window, center, win_length=win_length)
    assert relative(got, torch.from_numpy(want)) <= 1e-12


@pytest.mark.parametrize("n_fft, hop, win_length", SETTINGS)
@pytest.mark.parametrize("time", [3000, 3001])
def test_istft_of_a_changed_spectrum_equals_torch_and_librosa(n_fft, hop, win_length, time):
    """A spectrum that is no STFT of any wave: here inverses could differ, and must not."""
    hop = hop or 128
    wav, w = noise(2, time), make_window("hann", win_length or n_fft, dtype=torch.float64)
    spec = stft(wav, n_fft, hop, win_length=win_length)
    spec = spec * torch.rand(spec.shape, generator=torch.Generator().manual_seed(1))
    got = istft(spec, time, n_fft, hop, win_length=win_length)
    want = torch.istft(spec, n_fft, hop, win_length, window=w, length=time)
    assert relative(got, want) <= 1e-12
    how = {"n_fft": n_fft, "hop_length": hop, "win_length": win_length, "length": time}
    want = librosa.istft(spec.numpy(), dtype=np.float64, **how)
    inner = slice(0, time - n_fft // 2)  # librosa drops the last, half covered, frames differently
    assert relative(got[..., inner], torch.from_numpy(want)[..., inner]) <= 1e-10


def test_istft_without_length_equals_torch():
    spec = stft(noise(2, 3001), 512, 128)
    want = torch.istft(spec, 512, 128, window=torch.hann_window(512, dtype=torch.float64))
    assert relative(istft(spec, hop=128), want) <= 1e-12


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
def test_griffin_lim_walks_the_same_way_as_librosa(momentum):
    """From the same phase, wave for wave after a few rounds, and equally near after many."""
    time = torch.arange(8192, dtype=torch.float64) / 8000
    wav = torch.sin(2 * torch.pi * (200 * time + 300 * time**2)) + 0.01 * noise(8192)
    mag = stft(wav, 512, 128).abs()
    how = {
        "hop_length": 128,
        "momentum": momentum,
        "init": None,
        "length": 8192,
        "pad_mode": "reflect",
    }
    for n_iter, same_wave in ((5, True), (60, False)):
        want = torch.from_numpy(
            librosa.griffinlim(mag.numpy(), n_iter=n_iter, dtype=np.float64, **how)
        )
        got = griffin_lim(mag, n_iter, momentum, torch.zeros_like(mag), 8192, n_fft=512, hop=128)
        if same_wave:
            assert relative(got, want) <= 1e-6
        ours, theirs = (
            spectral_convergence(w, mag, n_fft=512, hop=128).item() for w in (got, want)
        )
        assert abs(ours - theirs) <= 0.2
