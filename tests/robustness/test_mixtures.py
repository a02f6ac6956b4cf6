"""Corpora, mixtures and loaders under bad input, many workers and odd settings."""

import csv
import hashlib
import http.server
import re
import subprocess
import threading

import numpy as np
import pytest
import soundfile as sf
import torch
from torch.utils.data import DataLoader

from sepbook.engine.examples import example_noisy
from sepbook.mixtures import (
    ActivityDetector,
    Corpus,
    MixtureDataset,
    active_level,
    active_windows,
    example_corpus,
    example_readers,
    example_song,
    example_track,
    example_voices,
    fetch,
    librimix,
    loudness,
    musdb18,
    phase_vocoder,
    pitch_shift,
    preload,
    remix_batch,
    remix_unlabelled,
    shift_envelope,
    split,
    stretch,
    wsj0mix,
)

RATE = 8000


def write(folder, name, seconds=1.0, rate=RATE, channels=1, level=0.1, subtype="PCM_16"):
    """A file of noise."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(name.encode()))
    sf.write(path, level * rng.standard_normal((round(seconds * rate), channels)), rate, subtype)
    return path


def table(folder, rows):
    """An index.csv from a list of dicts."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "index.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def voices(folder, speakers=3, files=2, **how):
    """A small corpus: `files` files for each of some speakers."""
    rows = [
        {"file": f"{s}-{k}.wav", "speaker": f"s{s}"} for s in range(speakers) for k in range(files)
    ]
    for row in rows:
        write(folder, row["file"], **how)
    return table(folder, rows)


def songs(folder, n=3, stems=("vocals", "drums", "other"), **how):
    """A corpus of excerpts with stems."""
    for k in range(n):
        for stem in stems:
            write(folder, f"song-{k}/{stem}.wav", **how)
    return table(folder, [{"excerpt": f"song-{k}", "song": f"song {k}"} for k in range(n)])


def refuses(make, words, error=ValueError):
    """`make` raises one line that holds `words`."""
    with pytest.raises(error) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300
    assert re.search(words, message), message


# ---- the examples


@pytest.mark.parametrize(
    "example, settings",
    [
        (example_song, {}),
        (example_song, {"sample_rate": 16000, "mono": True}),
        (example_track, {}),
        (example_track, {"sample_rate": 44100}),
        (example_readers, {"n_src": 8, "sample_rate": 8000}),
        (example_noisy, {}),
        (example_noisy, {"kind": "babble", "sample_rate": 48000}),
        (example_voices, {"n_src": 3, "seconds": 2.0, "seed": 5}),
    ],
)
def test_examples_are_sums_and_copies(example, settings):
    item = example(**settings)
    assert torch.equal(item.mix, item.src.sum(0)) and item.src.shape[1:] == item.mix.shape
    assert 0.1 < item.mix.abs().max() < 1 and len(item.sources) == len(item.src)
    assert item.src.isfinite().all() and item.sample_rate == settings.get("sample_rate", item[3])
    kept = item.src.clone()
    item.src.zero_()
    assert torch.equal(example(**settings).src, kept)


def test_example_song_has_no_click():
    """Music sets its level: with the clicks at its edges its peak lay 13 dB above the music."""
    wave = example_song().mix.abs().amax(0)
    assert max(wave[:4410].max(), wave[-4410:].max()) < 0.8 * wave.max()
    assert wave[: 44100 // 10].square().mean() > 1e-3  # no silence, either
    assert abs(float(wave.max()) - 0.9) < 1e-6 and wave.max() < 4 * wave.quantile(0.99)


def test_example_readers_were_kept_apart():
    from sepbook.engine.examples import DATA, READERS

    kept = (DATA / "speech_validation.txt").read_text().split()
    assert len(READERS) == 8 and set(READERS) <= set(kept)
    assert sorted(READERS.values()) == ["F"] * 4 + ["M"] * 4


def test_example_readers():
    a, b = example_readers(seed=4), example_readers(seed=4)
    assert torch.equal(a.mix, b.mix) and not torch.equal(a.mix, example_readers(seed=5).mix)
    levels = example_readers(8).src.square().mean(dim=(1, 2))
    torch.testing.assert_close(levels, levels.mean().expand(8), rtol=1e-3, atol=0)
    chosen = example_readers(readers=["78", "7635", "8014"], seconds=1.5)
    assert chosen.src.shape == (3, 1, 24000) and chosen.sources == ("s1", "s2", "s3")
    swapped = example_readers(readers=["7635", "78"], seconds=1.5)
    assert torch.equal(swapped.src[0], chosen.src[1])


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"n_src": 9}, "8 readers"),
        ({"n_src": 0}, "n_src is 0"),
        ({"seconds": 7}, "6.1 s"),
        ({"seconds": 0}, "seconds is 0"),
        ({"readers": ["19"]}, "no reader '19'"),
    ],
)
def test_example_readers_refuse(wrong, words):
    refuses(lambda: example_readers(**wrong), words)


def test_example_noisy():
    from sepbook.engine.examples import DATA, NOISY, READERS

    kept = (DATA / "speech_validation.txt").read_text().split()
    assert set(NOISY.values()) <= set(kept)
    noises = (DATA / "noise_validation.txt").read_text().split()
    assert len(noises) == 4 and {f"{n}.flac" for n in NOISY if n != "babble"} <= set(noises)
    assert len([r for r in READERS if r not in NOISY.values()]) >= 6  # nobody babbles to himself
    for kind in NOISY:
        for snr in (-5, 0, 12.5):
            item = example_noisy(kind, snr)
            speech, noise = item.src
            level = 10 * (speech.square().sum() / noise.square().sum()).log10()
            assert abs(float(level) - snr) < 1e-3 and item.sources == ("speech", "noise")
            assert item.mix.shape == (1, 64000) and not speech[:, :8000].any()
            assert noise[:, 1000:8000].square().mean() > 0.1 * noise.square().mean()
    assert not torch.equal(example_noisy("boiler").mix, example_noisy("babble").mix)


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"kind": "rain"}, "no noise 'rain'; there are boiler, footsteps, babble"),
        ({"snr": 61}, "snr is 61"),
        ({"snr": float("nan")}, "snr is nan"),
    ],
)
def test_example_noisy_refuses(wrong, words):
    refuses(lambda: example_noisy(**wrong), words)


def test_packaged_data_is_small():
    from sepbook.engine.examples import DATA

    files = [path for path in DATA.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4.5e6
    assert example_track().src.abs().amax(dim=(1, 2)).min() > 0.2  # all three stems sound


def test_example_voices_are_stable():
    a, b = example_voices(seed=4), example_voices(seed=4)
    assert torch.equal(a.mix, b.mix) and not torch.equal(a.mix, example_voices(seed=5).mix)
    levels = a.src.square().mean(dim=(1, 2))
    torch.testing.assert_close(levels[0], levels[1], rtol=1e-4, atol=0)
    assert example_voices(2, 1.0, sample_rate=16000).src.shape == (2, 1, 16000)


@pytest.mark.parametrize("n_src, seconds", [(9, 4), (0, 4), (2, 0), (2, -1)])
def test_example_voices_refuse(n_src, seconds):
    refuses(lambda: example_voices(n_src, seconds), "speakers")


def test_packaged_voices_are_sound():
    corpus = example_corpus()
    assert len(corpus) == 64 and corpus.sample_rate == RATE
    for i in range(len(corpus)):
        assert -30 < active_level(corpus[i], RATE) < -22 and corpus[i].abs().max() < 1


# ---- Corpus


def test_missing_things(tmp_path):
    refuses(lambda: Corpus(tmp_path / "none"), "no folder", FileNotFoundError)
    refuses(lambda: Corpus(tmp_path), "no index.csv", FileNotFoundError)
    table(tmp_path, [{"file": "gone.wav"}])
    refuses(lambda: Corpus(tmp_path), "no such file", FileNotFoundError)


def test_missing_columns(tmp_path):
    write(tmp_path, "a.wav")
    refuses(lambda: Corpus(table(tmp_path, [{"name": "a.wav"}])), "needs 'file'")
    corpus = Corpus(table(tmp_path, [{"file": "a.wav"}]))
    refuses(lambda: MixtureDataset(corpus), "no column 'speaker'")
    refuses(lambda: split(corpus), "two values of 'speaker'")


def test_empty_table(tmp_path):
    (tmp_path / "index.csv").write_text("file,speaker\n")
    refuses(lambda: Corpus(tmp_path), "no rows")


@pytest.mark.parametrize(
    "content, words", [(b"", "is empty"), (b"just some text" * 9, "is not WAV")]
)
def test_files_that_are_no_audio(tmp_path, content, words):
    (tmp_path / "a.wav").write_bytes(content)
    refuses(lambda: Corpus(table(tmp_path, [{"file": "a.wav"}])), words)


def test_no_samples(tmp_path):
    write(tmp_path, "a.wav", seconds=0)
    refuses(lambda: Corpus(table(tmp_path, [{"file": "a.wav"}])), "holds no samples")


@pytest.mark.parametrize("cache", [True, False])
def test_damaged_file(tmp_path, cache):
    path = write(tmp_path, "a.flac", seconds=4, subtype="PCM_16")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    opened = lambda: Corpus(table(tmp_path, [{"file": "a.flac"}]), cache=cache)
    refuses(opened, "'a.flac' is cut off: 1.5 of 4.0 s")


def test_nan(tmp_path):
    wav = np.full(RATE, 0.1)
    wav[100] = np.nan
    sf.write(tmp_path / "a.wav", wav, RATE, "FLOAT")
    corpus = Corpus(table(tmp_path, [{"file": "a.wav"}]))
    refuses(lambda: corpus[0], "'a.wav' holds NaN")


@pytest.mark.parametrize("start, stop", [(-1, 10), (0, 8001), (500, 500), (600, 500), (8000, "")])
def test_bounds(tmp_path, start, stop):
    write(tmp_path, "a.wav")
    refuses(
        lambda: Corpus(table(tmp_path, [{"file": "a.wav", "start": start, "stop": stop}])), "row 1"
    )


def test_bounds_that_are_no_numbers(tmp_path):
    write(tmp_path, "a.wav")
    refuses(lambda: Corpus(table(tmp_path, [{"file": "a.wav", "start": "0.5"}])), "whole numbers")


def test_rates_must_agree_or_be_converted(tmp_path):
    write(tmp_path, "a.wav"), write(tmp_path, "b.wav", rate=16000)
    table(tmp_path, [{"file": "a.wav"}, {"file": "b.wav"}])
    refuses(lambda: Corpus(tmp_path), "differ in rate: 8000 .*16000 .*pass sample_rate")
    corpus = Corpus(tmp_path, sample_rate=11025)
    assert corpus[0].shape == corpus[1].shape == (1, 11025)


def test_channels_must_agree_or_be_converted(tmp_path):
    write(tmp_path, "a.wav"), write(tmp_path, "b.wav", channels=2)
    table(tmp_path, [{"file": "a.wav"}, {"file": "b.wav"}])
    refuses(lambda: Corpus(tmp_path), "differ in channels")
    assert Corpus(tmp_path, channels=1)[1].shape[0] == 1
    both = Corpus(tmp_path, channels=2)
    assert both[0].shape[0] == 2 and torch.equal(both[0][0], both[0][1])


@pytest.mark.parametrize("rate", [None, 5000, 22050])
def test_cache_and_disk_agree(tmp_path, rate):
    write(tmp_path, "a.wav", seconds=2)
    table(tmp_path, [{"file": "a.wav", "start": 2000, "stop": 12000}])
    cached, direct = (Corpus(tmp_path, sample_rate=rate, cache=c) for c in (True, False))
    assert cached.length(0) == direct.length(0)
    a, b = cached.read(0, 1500, 2000), direct.read(0, 1500, 2000)
    assert a.shape == b.shape == (1, 2000)
    if rate is None:
        assert torch.equal(a, b) and torch.equal(a, cached[0][:, 1500:3500])


def test_split_by_speaker():
    train, valid = split(example_corpus(), 0.25, seed=3)
    names = [{row["speaker"] for row in part.rows} for part in (train, valid)]
    assert not names[0] & names[1] and len(names[1]) == 2 and len(train) + len(valid) == 64


# ---- MixtureDataset


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_same_seed_same_mixture_for_any_worker_count(workers):
    data = MixtureDataset(example_corpus(), seconds=0.5, size=7, seed=2)
    data.set_epoch(3)
    want = [data[i] for i in range(7)]
    got = list(DataLoader(data, batch_size=None, num_workers=workers))
    for (mix, src), (want_mix, want_src) in zip(got, want):
        assert torch.equal(mix, want_mix) and torch.equal(src, want_src)


def test_workers_that_are_spawned():
    """Where processes can't fork (macOS, Windows), the data set is pickled to them."""
    data = MixtureDataset(example_corpus(), seconds=0.5, size=3, seed=2)
    loader = DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert all(torch.equal(mix, data[i][0]) for i, (mix, _) in enumerate(loader))


def test_order_of_access_does_not_matter():
    data = MixtureDataset(example_corpus(), seconds=0.5, size=20, seed=1)
    one = {i: data[i][0] for i in range(20)}
    other = MixtureDataset(example_corpus(), seconds=0.5, size=20, seed=1)
    for i in np.random.default_rng(0).permutation(20).tolist():
        assert torch.equal(other[i][0], one[i])


def test_epochs_reach_running_workers():
    data = MixtureDataset(example_corpus(), seconds=0.25, size=4)
    loader = DataLoader(data, batch_size=None, num_workers=2, persistent_workers=True)
    first = [mix for mix, _ in loader]
    data.set_epoch(1)
    second = [mix for mix, _ in loader]
    data.set_epoch(0)
    assert not any(torch.equal(a, b) for a, b in zip(first, second))
    assert all(torch.equal(a, b[0]) for a, b in zip(first, loader))


def test_different_speakers(tmp_path):
    folder = voices(tmp_path, speakers=3)
    for k in range(3):
        for j in range(2):
            sf.write(folder / f"{k}-{j}.wav", np.full(4000, 0.1 * (k + 1)), RATE)
    data = MixtureDataset(Corpus(folder), n_src=3, seconds=0.1, size=50, level="none")
    for _, src in data:
        ratios = (src[:, 0, 0] / src.max()).sort().values
        torch.testing.assert_close(ratios, torch.tensor([1 / 3, 2 / 3, 1]), rtol=1e-2, atol=0)


def test_too_few_speakers(tmp_path):
    corpus = Corpus(voices(tmp_path, speakers=2))
    refuses(lambda: MixtureDataset(corpus, n_src=3), "has 2 speakers")
    refuses(lambda: MixtureDataset(corpus, n_src=0), "n_src is 0")


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds": 0},
        {"seconds": float("nan")},
        {"size": 0},
        {"seed": -1},
        {"remix": 1.5},
        {"mode": "middle"},
        {"short": "cut"},
        {"level": "peak"},
        {"level_range": (3, -3)},
        {"noise_snr": (float("nan"), 0)},
    ],
)
def test_settings_that_mean_nothing(wrong):
    refuses(lambda: MixtureDataset(example_corpus(), **wrong), str(next(iter(wrong))))


def test_short_sounds_are_joined_or_padded(tmp_path):
    corpus = Corpus(voices(tmp_path, seconds=0.3))
    _, src = MixtureDataset(corpus, seconds=1.0, size=1)[0]
    assert src.shape == (2, 1, RATE) and active_windows(src, 800).all()
    _, src = MixtureDataset(corpus, seconds=1.0, size=1, short="pad")[0]
    assert src.shape == (2, 1, RATE) and src[..., 2400:].abs().max() == 0
    assert active_windows(src[..., :2400], 800).all()


def test_silent_voice(tmp_path):
    corpus = Corpus(voices(tmp_path, level=0.0))
    refuses(lambda: MixtureDataset(corpus, seconds=0.5)[0], "silent")


@pytest.mark.parametrize("mode", ["min", "max"])
def test_whole_sounds(tmp_path, mode):
    rows = [{"file": f"{k}.wav", "speaker": k} for k in range(2)]
    write(tmp_path, "0.wav", seconds=0.5), write(tmp_path, "1.wav", seconds=0.8)
    mix, src = MixtureDataset(Corpus(table(tmp_path, rows)), mode=mode, size=1)[0]
    assert src.shape[-1] == (4000 if mode == "min" else 6400)
    assert torch.equal(mix, src.sum(0))


@pytest.mark.parametrize("mode", ["min", "max"])
def test_whole_sounds_are_augmented(tmp_path, mode):
    rows = [{"file": f"{k}.wav", "speaker": k} for k in range(2)]
    write(tmp_path, "0.wav", seconds=0.5), write(tmp_path, "1.wav", seconds=0.8)
    half = lambda wav, rng: wav[..., : wav.shape[-1] // 2]
    corpus = Corpus(table(tmp_path, rows))
    mix, src = MixtureDataset(corpus, mode=mode, size=1, augment=half)[0]
    assert src.shape[-1] == (2000 if mode == "min" else 3200)
    assert torch.equal(mix, src.sum(0))


def test_levels_are_kept():
    corpus = example_corpus()
    data = MixtureDataset(corpus, mode="max", size=20, level_range=(-30, -25), seed=1)
    for mix, src in data:
        levels = [active_level(s[:, : int(s.nonzero().max()) + 1], RATE) for s in src]
        assert all(-30.5 < level < -24.5 for level in levels) and mix.abs().max() <= 0.9 + 1e-6


def test_the_peak_is_held():
    data = MixtureDataset(example_corpus(), size=5, level_range=(-3, -3))
    for mix, src in data:
        torch.testing.assert_close(mix.abs().max(), torch.tensor(0.9))
        assert torch.equal(mix, src.sum(0))


def test_noise(tmp_path):
    write(tmp_path, "a.wav", seconds=0.3)
    noise = Corpus(table(tmp_path, [{"file": "a.wav"}]))
    data = MixtureDataset(example_corpus(), seconds=1, size=4, noise=noise, noise_snr=(5, 5))
    for mix, src in data:
        rest = (mix - src.sum(0)).square().mean()
        snr = 10 * torch.log10(src.square().mean(dim=(1, 2)).max() / rest)
        assert abs(float(snr) - 5) < 0.01
    write(tmp_path, "a.wav", rate=16000)
    noise = Corpus(tmp_path)
    refuses(lambda: MixtureDataset(example_corpus(), noise=noise), "sample_rate=8000")


def test_single_speaker_in_noise_is_enhancement(tmp_path):
    noise = Corpus(voices(tmp_path))
    mix, src = MixtureDataset(example_corpus(), n_src=1, seconds=1, size=1, noise=noise)[0]
    assert src.shape == (1, 1, RATE) and not torch.allclose(mix, src[0])


# ---- songs


def test_stems_keep_step_unless_remixed(tmp_path):
    folder = songs(tmp_path, n=4)
    ramp = np.arange(4 * RATE) / (4 * RATE)
    for k in range(4):
        for stem in ("vocals", "drums", "other"):
            sf.write(folder / f"song-{k}" / f"{stem}.wav", ramp * 0.2 + k * 0.2, RATE, "FLOAT")
    corpus = Corpus(folder)
    assert corpus.rows[0]["stem"] == "vocals"  # the order of MUSDB18
    kept = MixtureDataset(corpus, seconds=0.5, size=10)
    assert kept.sources == ("vocals", "drums", "other")
    assert all(torch.equal(src[0], src[1]) for _, src in kept)
    remixed = MixtureDataset(corpus, seconds=0.5, size=10, remix=1.0)
    for mix, src in remixed:
        scale = 0.1 / 8 / RATE / float(src[0, 0, 1] - src[0, 0, 0]) * 4  # undo the peak's gain
        which = (src[:, 0, 0] * scale / 0.2).floor()
        assert len(which.unique()) == 3, which
        torch.testing.assert_close(mix, src.sum(0))


def test_songs_stereo_and_rate(tmp_path):
    folder = songs(tmp_path, channels=2, rate=16000)
    data = MixtureDataset(
        Corpus(folder, sample_rate=RATE), seconds=0.5, size=2, level_range=(-6, 0)
    )
    assert data[0][1].shape == (3, 2, 4000) and data[0][0].shape == (2, 4000)
    assert MixtureDataset(Corpus(folder, channels=1), seconds=0.5)[0][1].shape == (3, 1, 8000)


def test_songs_shorter_than_the_segment(tmp_path):
    _, src = MixtureDataset(Corpus(songs(tmp_path)), seconds=2, size=1)[0]
    assert src.shape[-1] == 16000 and src[..., RATE:].abs().max() == 0


def test_songs_that_differ(tmp_path):
    folder = songs(tmp_path)
    (folder / "song-1" / "drums.wav").unlink()
    refuses(lambda: MixtureDataset(Corpus(folder)), "all songs need the same")
    refuses(lambda: MixtureDataset(Corpus(songs(tmp_path)), mode="min"), "mode='fixed'")
    table(tmp_path, [{"excerpt": "no-such-song"}])
    refuses(lambda: Corpus(tmp_path), "no stems", FileNotFoundError)


def test_remix_batch():
    src = torch.randn(5, 3, 2, 100)
    mix, out = remix_batch(src, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mix, out.sum(1))
    torch.testing.assert_close(out.sum(0), src.sum(0))
    assert not torch.equal(out, src)
    refuses(lambda: remix_batch(src[0]), "batch, source, channel, time")


# ---- levels and augmentation


@pytest.mark.parametrize("rate, channels", [(8000, 1), (16000, 2), (44100, 2), (48000, 1)])
def test_loudness_equals_ffmpeg(rate, channels):
    rng = np.random.default_rng(rate)
    wav = torch.from_numpy(0.05 * rng.standard_normal((channels, 3 * rate))).float()
    wav[:, rate : 2 * rate] *= 0.01  # a pause for the gates
    call = ["ffmpeg", "-f", "f32le", "-ar", str(rate), "-ac", str(channels), "-i", "-"]
    call += ["-af", "ebur128", "-f", "null", "-"]
    log = subprocess.run(call, input=wav.T.contiguous().numpy().tobytes(), capture_output=True)
    want = float(log.stderr.decode().split("I:")[-1].split("LUFS")[0])
    assert abs(loudness(wav, rate) - want) < 0.15


def test_active_level():
    noise = 0.1 * torch.randn(1, 80000, generator=torch.Generator().manual_seed(0))
    assert abs(active_level(noise, RATE) + 20) < 0.3  # no pauses: its RMS
    paused = torch.cat([noise, torch.zeros(1, 160000)], -1)
    assert abs(active_level(paused, RATE) - active_level(noise, RATE)) < 0.2
    for drop, want in [(12, -22.7), (30, -20.0)]:  # a margin of 15.9 dB: 12 is speech, 30 a pause
        soft = torch.cat([noise, noise * 10 ** (-drop / 20)], -1)
        assert abs(active_level(soft, RATE) - want) < 0.5
    assert (
        active_level(torch.zeros(1, 800), RATE) == -np.inf == loudness(torch.zeros(1, 8000), RATE)
    )
    assert np.isfinite(active_level(torch.ones(1, 3), RATE))


def test_stretch_equals_librosa():
    librosa = pytest.importorskip("librosa")
    from sepbook.stft import stft

    spec = stft(example_song(mono=True).src[0, 0, :66150].double(), n_fft=2048, hop=512)
    for rate in (0.71, 1.3):  # no frame falls on a frame, where rounding would decide
        want = librosa.phase_vocoder(spec.numpy(), rate=rate, hop_length=512)
        got = phase_vocoder(spec, rate, 512, 2048).numpy()[:, : want.shape[1]]
        n = got.shape[1]
        np.testing.assert_allclose(np.abs(got), np.abs(want[:, :n]), atol=1e-6)
        error = np.linalg.norm(got - want[:, :n]) / np.linalg.norm(want)
        assert error < 1e-6, error


@pytest.mark.parametrize("shape", [(8001,), (2, 8001), (3, 2, 8001)])
def test_augmentation_keeps_axes(shape):
    wav = torch.randn(*shape)
    assert shift_envelope(wav, 1.1, RATE).shape == shape
    assert stretch(wav, 0.8, RATE).shape == (*shape[:-1], round(8001 / 0.8))
    if len(shape) > 1:
        assert pitch_shift(wav, -2.5, RATE).shape == shape


def test_augmentation_refuses():
    wav = torch.randn(1, 8000)
    refuses(lambda: stretch(wav, 0, RATE), "rate is 0")
    refuses(lambda: stretch(wav, float("nan"), RATE), "rate is nan")
    refuses(lambda: shift_envelope(wav, 3, RATE), "factor is 3")


def test_augmentation_in_the_data_set(tmp_path):
    def faster(wav, rng):
        return stretch(wav, rng.uniform(1.05, 1.2), RATE)

    data = MixtureDataset(example_corpus(), seconds=1, size=2, augment=faster)
    assert data[0][1].shape == (2, 1, RATE) and torch.equal(data[0][0], data[0][0])
    assert active_windows(data[0][1][..., -800:], 800, -70).all()  # no zeros at the end
    stems = Corpus(songs(tmp_path, seconds=3))
    assert MixtureDataset(stems, seconds=1, augment=faster)[0][1].shape == (3, 1, RATE)


# ---- unlabelled songs


def test_activity():
    wav = torch.cat([torch.ones(2, 100), torch.zeros(2, 100), torch.ones(2, 50)], -1)
    assert active_windows(wav, 100).tolist() == [True, False]
    refuses(lambda: active_windows(wav, 1000), "less than one window")


def test_unlabelled_remixing():
    song = example_song(22050)
    detector = ActivityDetector(song.sources, 22050, 0.5, -37).fit([song.src])
    present = detector(song.src[2:].sum(0))
    assert present.shape == (4, 11) and (present[0] < 0.5).all() and (present[2] > 0.5).all()
    pairs = list(remix_unlabelled(song.src[2:].sum(0), present[0], song.src[0], detector.window))
    assert pairs and all(src.shape == (2, 2, detector.window) for _, src in pairs)
    assert all(torch.equal(mix, src.sum(0)) for mix, src in pairs)
    chosen = remix_unlabelled(song.mix, torch.tensor([0.9, 0.01, 0.06]), song.src[0], 1000)
    (_, src), *others = chosen
    assert not others and torch.equal(src[1], song.mix[:, 1000:2000])
    refuses(lambda: list(remix_unlabelled(song.mix, present[0], song.src[0, :1], 100)), "channels")


# ---- the corpora of the field


@pytest.fixture
def musdb_root(tmp_path):
    """A folder as MUSDB18-HQ has it, with the example song twice."""
    song = example_song()
    for subset in ("train", "test"):
        for name in ("Band - One", "Band - Two"):
            folder = tmp_path / "musdb" / subset / name
            folder.mkdir(parents=True)
            for stem, wav in {"mixture": song.mix, **dict(zip(song.sources, song.src))}.items():
                sf.write(folder / f"{stem}.wav", wav[:, :88200].T.numpy(), 44100, "PCM_16")
    return tmp_path / "musdb"


def test_musdb18_hq(musdb_root):
    data = musdb18(musdb_root)
    assert len(data) == 2 and data.names == ["Band - One", "Band - Two"]
    mix, src = data[1]
    song = example_song()
    torch.testing.assert_close(src, song.src[..., :88200].clamp(-1, 1), atol=1e-4, rtol=0)
    torch.testing.assert_close(mix, src.sum(0), atol=2e-4, rtol=0)
    pieces = MixtureDataset(data, seconds=0.5, size=3, remix=0.5)
    assert pieces.sources == song.sources and pieces[2][1].shape == (4, 2, 22050)
    assert musdb18(musdb_root, sample_rate=22050)[0][1].shape == (4, 2, 44100)


def test_musdb18_stem_files(tmp_path):
    from importlib.util import find_spec
    from pathlib import Path
    from shutil import copy

    source = next((Path(find_spec("stempeg").origin).parent / "data").glob("*.stem.mp4"))
    (tmp_path / "test").mkdir()
    copy(source, tmp_path / "test" / "A - B.stem.mp4")
    data = musdb18(tmp_path, subset="test", is_wav=False)
    mix, src = data[0]
    song = example_song()
    inside, ours = src[..., 2205 + 220 : 265923 - 220], song.src[..., 220:-220]
    scale = float((inside[1] * ours[1]).sum() / ours[1].square().sum())
    assert mix.shape == src.shape[1:]
    assert (inside - scale * ours).abs().max() < 3e-2  # musdb clips at 16 bits
    piece = MixtureDataset(data, seconds=1, size=1)[0][1]
    assert piece.shape == (4, 2, 44100) and piece.abs().max() > 0.1


def test_musdb18_refuses(musdb_root, tmp_path):
    refuses(lambda: musdb18(tmp_path / "none"), "no folder", FileNotFoundError)
    refuses(lambda: musdb18(tmp_path), "no folders with WAV files", FileNotFoundError)
    refuses(lambda: musdb18(musdb_root, subset="valid"), "subset is 'valid'")
    (musdb_root / "train" / "Band - One" / "bass.wav").unlink()
    refuses(lambda: musdb18(musdb_root), "lacks bass", FileNotFoundError)


def test_musdb18_previews_fall_back(tmp_path, monkeypatch, capsys):
    import musdb

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(musdb.DB, "download", offline)
    data = musdb18(tmp_path, download=True)
    assert "can't be fetched" in capsys.readouterr().out
    assert len(data) == 1 and torch.equal(data[0][1], example_song().src)


@pytest.fixture
def librimix_root(tmp_path):
    """A folder as LibriMix's scripts write it."""
    part = tmp_path / "Libri2Mix" / "wav8k" / "min" / "train-100"
    for seed in range(3):
        item = example_voices(seconds=1, seed=seed)
        for name, wav in {"mix_clean": item.mix, "s1": item.src[0], "s2": item.src[1]}.items():
            (part / name).mkdir(parents=True, exist_ok=True)
            sf.write(part / name / f"{seed}.wav", wav[0].numpy(), RATE, "FLOAT")
    return tmp_path


def test_librimix(librimix_root):
    data = librimix(librimix_root)
    assert len(data) == 3 and data.sources == ("s1", "s2")
    mix, src = data[2]
    want = example_voices(seconds=1, seed=2)
    torch.testing.assert_close(mix, want.mix)
    torch.testing.assert_close(src, want.src)
    assert len(librimix(librimix_root / "Libri2Mix")) == 3


def test_librimix_lists_what_torchaudio_lists(librimix_root):
    datasets = pytest.importorskip("torchaudio.datasets")
    theirs = datasets.LibriMix(librimix_root, subset="train-100")
    ours = librimix(librimix_root)
    assert [theirs.get_metadata(i)[1].rsplit("/", 1)[-1] for i in range(3)] == ours.names


def test_librimix_refuses(librimix_root):
    refuses(lambda: librimix(librimix_root, subset="dev"), "no folder", FileNotFoundError)
    refuses(lambda: librimix(librimix_root, mode="mean"), "mode is 'mean'")
    part = librimix_root / "Libri2Mix" / "wav8k" / "min" / "train-100"
    sf.write(part / "s1" / "0.wav", np.zeros(500), RATE)
    refuses(lambda: librimix(librimix_root)[0], "differs in length")
    sf.write(part / "s1" / "0.wav", np.zeros(RATE), 16000)
    refuses(lambda: librimix(librimix_root)[0], "16000 Hz")


@pytest.mark.parametrize("mode", ["min", "max"])
def test_wsj0mix(tmp_path, mode):
    corpus = example_corpus()
    listed = tmp_path / "list.txt"
    listed.write_text("ada-1.flac 1.5 ben-2.flac -1.5\n\ncal-3.flac 0 fay-1.flac 0\n")
    data = wsj0mix(listed, corpus.files.folder, mode=mode)
    assert len(data) == 2 and data.sources == ("s1", "s2")
    mix, src = data[0]
    assert torch.equal(mix, src.sum(0))
    assert abs(float(torch.stack([mix, *src]).abs().max()) - 0.9) < 1e-6
    if mode == "max":
        level = [active_level(s[:, : int(s.nonzero().max()) + 1], RATE) for s in src]
        assert abs(level[0] - level[1] - 3) < 0.05
    frames = [len(sf.read(corpus.files.folder / f"{name}.flac")[0]) for name in ("ada-1", "ben-2")]
    assert src.shape[-1] == (min(frames) if mode == "min" else max(frames))


def test_wsj0mix_refuses(tmp_path):
    folder = example_corpus().files.folder
    refuses(lambda: wsj0mix(tmp_path / "none.txt", folder), "no mixing list", FileNotFoundError)
    listed = tmp_path / "list.txt"
    for text, words, error in [
        ("", "is empty", ValueError),
        ("ada-1.flac loud ben-1.flac 0", "line 1", ValueError),
        ("ada-1.flac 1.0", "line 1", ValueError),
        ("nobody.wav 1 ada-1.flac -1", "nobody.wav", FileNotFoundError),
    ]:
        listed.write_text(text)
        refuses(lambda: wsj0mix(listed, folder), words, error)


# ---- downloads


@pytest.fixture
def server(tmp_path):
    """A web server for one folder on this machine."""
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "sound.flac").write_bytes(b"some sound")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/sound.flac"
        web.shutdown()


def test_fetch(server, tmp_path, capsys, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    cache, default = tmp_path / "cache", tmp_path / "default.flac"
    right = hashlib.sha256(b"some sound").hexdigest()
    path = fetch(server, right, default, cache)
    assert path.read_bytes() == b"some sound" and capsys.readouterr().out == ""
    assert fetch("http://127.0.0.1:9/sound.flac", right, default, cache)  # nothing there to ask
    assert fetch(server, "0" * 64, default, tmp_path / "other") == default
    assert "checksum is wrong" in capsys.readouterr().out
    assert not list((tmp_path / "other").glob("*.flac"))
    assert fetch("http://127.0.0.1:9/gone.flac", right, default, cache) == default
    assert capsys.readouterr().out.count("\n") == 1


# ---- speed


def test_mixing_is_fast_enough():
    """A slack guard, in processor time; the figure itself is in results/loader.json."""
    import time

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data = MixtureDataset(preload(example_corpus()), seconds=4, size=100)
    best = 0.0
    for _ in range(3):
        started = time.process_time()
        count = sum(1 for _ in data)
        best = max(best, count / (time.process_time() - started))
    torch.set_num_threads(threads)
    assert best > 100


@pytest.mark.parametrize("how", [{"seconds": 1e-9}, {"seconds": 1e9}, {"size": 10**12}])
def test_what_no_machine_can_draw_is_refused_at_once(how):
    with pytest.raises(ValueError, match=r"must be at (least|most)"):
        MixtureDataset(example_corpus(), **how)
