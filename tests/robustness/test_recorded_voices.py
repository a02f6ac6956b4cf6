"""Voices out of packages, for training."""

import csv
import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
from course import ROOT

from sepbook.engine.corpora import Corpus

sys.path.insert(0, str(ROOT / "benchmarks"))
recorded_voices = pytest.importorskip("recorded_voices")
speech_voices = pytest.importorskip("speech_voices")
RNG = np.random.default_rng(5)


def said(noise: float, seconds: float = 2.0, rate: int = 22050) -> bytes:
    """A WAV file: a tone between pauses, over noise of so much of its size."""
    wav = RNG.normal(size=round(seconds * rate)) * noise
    middle = slice(len(wav) // 4, 3 * len(wav) // 4)
    wav[middle] += np.sin(0.06 * np.arange(len(wav)))[middle]
    file = io.BytesIO()
    sf.write(file, 0.3 * wav, rate, format="WAV")
    return file.getvalue()


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs Debian's dpkg-deb")
def test_a_package_becomes_tracks_of_clean_voices(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    control = tree / "DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: words\nVersion: 1-2\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n"
    )
    for voice, noise in (("clean", 1e-4), ("hiss", 0.1)):
        place = tree / "usr/share/words" / voice
        place.mkdir(parents=True)
        for k in range(20):
            (place / f"{k}.wav").write_bytes(said(noise))
        (place / "beep.wav").write_bytes(said(0))
    build = ["dpkg-deb", "--build", str(tree), str(tmp_path / "words_1-2_all.deb")]
    subprocess.run(build, check=True, capture_output=True)
    rule = recorded_voices.Package("1-2", "CC0 1.0", r"words/(\w+)/", "beep")
    monkeypatch.setattr(recorded_voices, "PACKAGES", {"words": rule})
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["x", str(out), "--packages", str(tmp_path)])
    recorded_voices.main()

    corpus = Corpus(out, sample_rate=16000, channels=1)
    assert {row["speaker"] for row in corpus.rows} == {"words.clean"}
    assert {row["licence"] for row in corpus.rows} == {"CC0 1.0"}
    wav = corpus[0][0]
    power = wav[: len(wav) // 320 * 320].reshape(-1, 320).square().mean(1)
    speaks = power > 1e-4
    assert 10 * power[speaks].median().log10() == pytest.approx(recorded_voices.LEVEL, abs=1)
    assert 0.5 < speaks.float().mean() < 1  # pauses stay, not those of the recordings
    with open(out / "sources.csv", newline="", encoding="utf-8") as file:
        used = [row["path"] for row in csv.DictReader(file)]
    assert len(used) == len(set(used)) == 20 and not any("beep" in path for path in used)


def test_every_clip_is_in_one_track():
    clips = [np.ones(n * 1600) for n in range(1, 60)]
    made = recorded_voices.tracks(clips, np.random.default_rng(0))
    assert sorted(k for _, used in made for k in used) == list(range(59))
    for wav, used in made:
        assert round(wav.sum()) == sum(len(clips[k]) for k in used)
        assert len(wav) <= (recorded_voices.TRACK + 7) * recorded_voices.RATE


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_telephone_prompts_are_read():
    wav = np.sin(0.2 * np.arange(32000)) * 0.3
    file = io.BytesIO()
    sf.write(file, wav, 16000, format="WAV")
    how = ["-i", "-", "-f", "g722", "-"]
    data = subprocess.run(
        ["ffmpeg", "-v", "error", *how], input=file.getvalue(), capture_output=True
    )
    read = recorded_voices.read("hello.g722", data.stdout)
    n = min(len(read), len(wav)) - 200
    lags = [read[k : k + n] @ wav[:n] for k in range(64)]
    error = read[np.argmax(lags) :][: n - 64] - wav[: n - 64]
    assert 10 * np.log10(np.square(error).mean() / np.square(wav).mean()) < -20
    assert recorded_voices.read("empty.g722", b"") is None


def test_what_synthesisers_read_are_sentences():
    text = speech_voices.sentences()
    assert len(text) > 1000
    assert not any(line.startswith("-") for line in text)  # an option to espeak-ng
