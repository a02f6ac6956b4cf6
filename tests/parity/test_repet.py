"""REPET-SIM's model and the harmonic and percussive masks equal librosa's, and take less time."""

import time

import librosa
import numpy as np
import pytest
import torch

from sepbook.classical.repet import (
    harmonic_percussive_masks,
    similar_frames,
    similar_model,
    soft_mask,
)
from sepbook.engine.examples import example_made, example_song, example_track
from sepbook.stft import stft


def magnitudes(example):
    item = example()
    return stft(item.mix.mean(0, keepdim=True), 2048, 512).abs()[0], item.sample_rate


@pytest.mark.parametrize("example", [example_song, example_made, example_track])
def test_similar_frames(example):
    """With mode="distance": the default takes all links for equally near, and keeps any k."""
    mag, rate = magnitudes(example)
    apart = int(librosa.time_to_frames(2, sr=rate, hop_length=512))
    apart = min(apart, (mag.shape[-1] - 1) // 2 - 1)
    near = {"metric": "cosine", "width": apart, "mode": "distance"}
    want = librosa.decompose.nn_filter(mag.numpy(), aggregate=np.median, **near)
    got = similar_model(mag, similar_frames(mag, apart)).numpy()
    same = np.abs(got - want) <= 1e-6 * want.max()
    assert same.all(0).mean() > 0.995  # a tie that falls the other way changes a frame
    assert same.mean() > 0.999


def test_masks_with_margins():
    mag, _ = magnitudes(example_song)
    model = 0.6 * mag * torch.rand(mag.shape, generator=torch.Generator().manual_seed(0))
    rest = mag - model
    for one, other in ((model, 2 * rest), (rest, 10 * model)):
        how = {"power": 2, "split_zeros": True}
        want = librosa.util.softmask(one.numpy(), other.numpy(), **how)
        assert np.abs(soft_mask(one, other).numpy() - want).max() < 1e-6


@pytest.mark.parametrize("kernel", [31, 17, (31, 13)])
def test_harmonic_and_percussive(kernel):
    mag, _ = magnitudes(example_song)
    sizes = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    want = librosa.decompose.hpss(mag.numpy(), kernel_size=kernel, mask=True)
    for ours, theirs in zip(harmonic_percussive_masks(mag, *sizes), want):
        assert np.abs(ours.numpy() - theirs).max() < 1e-6


def took(run):
    """Processor time of the fastest of three runs."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return min(times)


def test_not_slower():
    mag, _ = magnitudes(example_song)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    near = {"metric": "cosine", "width": 172, "mode": "distance", "aggregate": np.median}
    pairs = (
        (
            lambda: similar_model(mag, similar_frames(mag, 172)),
            lambda: librosa.decompose.nn_filter(mag.numpy(), **near),
        ),
        (
            lambda: harmonic_percussive_masks(mag),
            lambda: librosa.decompose.hpss(mag.numpy(), mask=True),
        ),
    )
    ratios = [took(ours) / took(theirs) for ours, theirs in pairs]
    torch.set_num_threads(threads)
    assert max(ratios) < 1
