"""Folders as people have them: no table, hidden files, odd headers, unequal stems, much audio."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from sepbook.engine import corpora
from sepbook.mixtures import Corpus, MixtureDataset, librimix
from sepbook.sound import room_responses

ROOT = Path(__file__).resolve().parents[2]
RATE = 8000
needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg on the PATH")


def write(path: Path, seconds: float = 1.0, rate: int = RATE) -> Path:
    """A file of noise, another for each name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(str(path.name).encode()) + len(path.parent.name))
    sf.write(path, 0.1 * rng.standard_normal(round(seconds * rate)), rate)
    return path


def table(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.csv").write_text(text)
    return folder


def refuses(make, *words: str, error=ValueError) -> None:
    """`make` raises one line that holds all words."""
    with pytest.raises(error) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    for word in words:
        assert word in message, message


# ---- without a table


def test_folders_of_songs(tmp_path):
    for song in ("train/one", "train/two", "test/three"):
        write(tmp_path / song / "vocals.wav")
        write(tmp_path / song / "drums.flac")
        write(tmp_path / song / "mixture.wav")
    (tmp_path / "train/one/cover.jpg").write_bytes(b"no sound")
    corpus = Corpus(tmp_path)
    assert [row["stem"] for row in corpus.rows[:2]] == ["vocals", "drums"] and len(corpus) == 6
    assert {row["excerpt"] for row in corpus.rows} == {"train/one", "train/two", "test/three"}
    assert MixtureDataset(corpus, seconds=0.5, size=1)[0][1].shape == (2, 1, 4000)


def test_stems_of_any_name_in_every_song(tmp_path):
    for song in "abc":
        for stem in ("lead", "strings left", "choir"):
            write(tmp_path / song / f"{stem}.wav")
    assert {row.get("stem") for row in Corpus(tmp_path).rows} == {"lead", "strings left", "choir"}


def test_one_song_alone(tmp_path):
    write(tmp_path / "song/vocals.wav"), write(tmp_path / "song/other.wav")
    assert {row["excerpt"] for row in Corpus(tmp_path / "song").rows} == {"song"}


def test_folders_of_speakers(tmp_path):
    for name in ("ada/1.wav", "ada/2.flac", "ben/1.wav", "cal/late/2.wav"):
        write(tmp_path / name)
    corpus = Corpus(tmp_path)
    assert [row["speaker"] for row in corpus.rows] == ["ada", "ada", "ben", "cal"]
    assert MixtureDataset(corpus, n_src=3, seconds=0.5, size=1)[0][1].shape[0] == 3
    outer = Corpus(tmp_path.parent, cache=False) if len(os.listdir(tmp_path.parent)) == 1 else None
    assert outer is None or [r["speaker"] for r in outer.rows] == ["ada", "ada", "ben", "cal"]


def test_librispeech_as_it_is(tmp_path):
    for part, who, book in (("dev", 84, 12), ("dev", 84, 13), ("dev", 17, 5), ("test", 9, 5)):
        write(tmp_path / f"{part}/{who}/{book}/{who}-{book}-0000.flac")
    assert {row["speaker"] for row in Corpus(tmp_path).rows} == {"84", "17", "9"}


def test_sounds_without_speakers(tmp_path):
    write(tmp_path / "a.wav"), write(tmp_path / "b.wav")
    corpus = Corpus(tmp_path)
    refuses(lambda: MixtureDataset(corpus), "'a.wav'", "speaker", "folder")
    assert MixtureDataset(corpus, n_src=1, seconds=0.5, size=1)[0][1].shape[0] == 1
    write(tmp_path / "ada/c.wav")
    refuses(lambda: MixtureDataset(Corpus(tmp_path)), "'a.wav' has no speaker")


def test_folders_that_are_something_else(tmp_path):
    refuses(lambda: Corpus(tmp_path), "no index.csv and no sounds", error=FileNotFoundError)
    write(tmp_path / "a/vocals.wav"), write(tmp_path / "a/vocals.flac")
    write(tmp_path / "a/drums.wav")
    refuses(lambda: Corpus(tmp_path), "'a' has vocals twice", "vocals.flac and vocals.wav")
    (tmp_path / "a/vocals.flac").unlink()
    write(tmp_path / "b/mixture.wav")
    refuses(lambda: Corpus(tmp_path), "'b'", "no stems")
    for name in ("mix", "s1", "s2"):
        write(tmp_path / f"pairs/{name}/1.wav")
    assert [row["stem"] for row in Corpus(tmp_path / "pairs").rows] == ["s1", "s2"]


def test_links_in_a_circle(tmp_path):
    write(tmp_path / "ada/1.wav"), write(tmp_path / "ben/1.wav")
    (tmp_path / "ada/again").symlink_to(tmp_path, target_is_directory=True)
    assert len(Corpus(tmp_path)) == 2


HIDDEN = (".DS_Store", "._vocals.wav", ".ipynb_checkpoints/vocals.wav", "__MACOSX/._a.wav")
HIDDEN += ("@eaDir/vocals.wav", "Thumbs.db", ".vocals.wav.swp")


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("indexed", [True, False])
def test_what_systems_leave_behind(tmp_path, name, indexed):
    for song in "xy":
        write(tmp_path / song / "vocals.wav"), write(tmp_path / song / "drums.wav")
    for place in (tmp_path, tmp_path / "x"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(b"\0\0\0\1Bud1")
    if indexed:
        table(tmp_path, "excerpt\nx\ny\n")
    assert [row["stem"] for row in Corpus(tmp_path).rows] == ["vocals", "drums"] * 2


def test_hidden_files_among_librimix(tmp_path):
    for name in ("mix_clean", "s1", "s2"):
        write(tmp_path / f"Libri2Mix/wav8k/min/dev/{name}/1.wav")
    (tmp_path / "Libri2Mix/wav8k/min/dev/mix_clean/._1.wav").write_bytes(b"\0")
    assert len(librimix(tmp_path, subset="dev")) == 1


# ---- rows


@pytest.mark.parametrize(
    "text, words",
    [
        ("file,speaker\na.wav,x\nb.wav\n", ("row 2", "b.wav", "no speaker")),
        ("file,speaker\na.wav,x\nb.wav,\n", ("row 2", "b.wav", "no speaker")),
        ("speaker,file\nx,a.wav\ny\n", ("row 2", "no file")),
        ("file,song\na.wav, \n", ("row 1", "no song")),
        ("file,speaker\na.wav,x,y\n", ("row 1", "more values")),
        ("file;speaker\na.wav;x\n", ("commas",)),
    ],
)
def test_rows_that_say_too_little_or_too_much(tmp_path, text, words):
    write(tmp_path / "a.wav"), write(tmp_path / "b.wav")
    refuses(lambda: Corpus(table(tmp_path, text)), *words)


def test_a_table_that_is_no_text(tmp_path):
    write(tmp_path / "a.wav")
    (tmp_path / "index.csv").write_bytes("file,speaker\na.wav,Jos\xe9\n".encode("latin-1"))
    refuses(lambda: Corpus(tmp_path), "UTF-8")


@pytest.mark.parametrize("order", [("aa", "bb", "cc"), ("bb", "aa", "cc"), ("aa", "bb")])
def test_a_song_that_lacks_a_stem_is_named(tmp_path, order):
    for song in order:
        for stem in ("vocals", "drums", "other"):
            if (song, stem) != ("aa", "drums"):
                write(tmp_path / song / f"{stem}.wav")
    refuses(lambda: MixtureDataset(Corpus(tmp_path)), "'aa' lacks drums")
    table(tmp_path, "excerpt\n" + "\n".join(order))
    refuses(lambda: MixtureDataset(Corpus(tmp_path)), "'aa' lacks drums")


def test_a_song_with_a_stem_of_its_own_is_named(tmp_path):
    for song in "abc":
        write(tmp_path / song / "vocals.wav"), write(tmp_path / song / "drums.wav")
    write(tmp_path / "b/piano.wav")
    refuses(lambda: MixtureDataset(Corpus(tmp_path)), "'b' alone has piano")


# ---- headers


@needs_ffmpeg
@pytest.mark.parametrize("kind", ["flac", "wav", "ogg", "mp3", "caf", "adts"])
def test_files_that_were_streamed(tmp_path, kind):
    source = write(tmp_path / "source.wav", 2)
    command = ["ffmpeg", "-v", "error", "-i", source, "-f", kind, "-"]
    name = "a.aac" if kind == "adts" else f"a.{kind}"
    (tmp_path / name).write_bytes(subprocess.run(command, stdout=subprocess.PIPE).stdout)
    corpora_of = [Corpus(table(tmp_path, f"file\n{name}\n"), cache=c) for c in (True, False)]
    for corpus in corpora_of:
        assert abs(corpus.length(0) - 2 * RATE) < 2000 and corpus[0].shape[-1] == corpus.length(0)
    a, b = (corpus.read(0, 9000, 4000) for corpus in corpora_of)
    assert a.shape == (1, 4000)
    if kind in ("flac", "wav"):
        want = torch.from_numpy(sf.read(source, dtype="float32")[0])[None, 9000:13000]
        torch.testing.assert_close(a, want), torch.testing.assert_close(b, want)


def test_a_file_that_was_cut_off_is_named(tmp_path):
    path = write(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:9000])
    refuses(lambda: Corpus(table(tmp_path, "file\na.wav\n")), "'a.wav' is cut off", "16000")


# ---- from disk


def test_unequal_stems_from_memory_and_disk(tmp_path):
    for stem, seconds in {"vocals": 3.0, "drums": 1.2, "other": 2.0}.items():
        write(tmp_path / f"x/{stem}.wav", seconds)
    kept, direct = (
        MixtureDataset(Corpus(tmp_path, cache=c), seconds=1.0, size=40) for c in (True, False)
    )
    assert all(torch.equal(kept[i][1], direct[i][1]) for i in range(40))
    assert any(float(kept[i][1][1].abs().max()) == 0 for i in range(40))  # after the drums' end


@pytest.mark.parametrize("rate", [11025, 16000, 44100])
def test_windows_are_pieces_of_the_whole(tmp_path, rate):
    write(tmp_path / "a.wav", 3, rate)
    table(tmp_path, f"file,start,stop\na.wav,{rate // 7},{2 * rate + 5}\n")
    kept, direct = (Corpus(tmp_path, sample_rate=RATE, cache=c) for c in (True, False))
    for start, frames in ((0, 500), (1, 333), (7777, 2000), (14000, 9000), (20000, 100)):
        a, b = kept.read(0, start, frames), direct.read(0, start, frames)
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_only_small_corpora_are_kept(tmp_path):
    write(tmp_path / "ada/a.wav", 10)
    assert Corpus(tmp_path).files.cache == {}
    assert Corpus(tmp_path, memory=1e-4).files.cache is None
    assert Corpus(tmp_path, memory=1e-4, cache=True).files.cache == {}


def test_the_level_of_a_long_recording_takes_pieces_of_it(tmp_path, monkeypatch):
    write(tmp_path / "ada/a.wav", 700)
    corpus, read = Corpus(tmp_path, cache=False), []
    whole = corpora.active_level(corpus[0], RATE)
    monkeypatch.setattr(
        corpora,
        "decode",
        lambda p, a, b, j, old=corpora.decode: (read.append(b - a), old(p, a, b, j))[1],
    )
    assert abs(corpus.level(0, "active") - whole) < 0.2 and max(read) <= 31 * RATE


@pytest.mark.skipif(sys.platform == "win32", reason="no sparse files")
def test_a_training_on_more_audio_than_memory(tmp_path):
    """Twice as much audio takes no more memory: 1 GB here; benchmarks/corpus_memory.py has 20."""
    out = tmp_path / "found.json"
    script = [sys.executable, ROOT / "benchmarks/corpus_memory.py", "--out", out]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    subprocess.run([*script, "--gigabytes", "1", "--memory", "0.1"], check=True, env=env)
    assert json.loads(out.read_text())["peak GB"] < 1.8
    recorded = json.loads((ROOT / "results/corpus_memory.json").read_text())
    assert recorded["GB of audio"] >= 20 and recorded["peak GB"] < 3


# ---- noise


def test_noise_as_a_source(tmp_path):
    for name in ("speech/ada/1.wav", "speech/ben/1.wav", "noise/street/1.wav", "noise/2.wav"):
        write(tmp_path / name, 2)
    speech, noise = Corpus(tmp_path / "speech"), Corpus(tmp_path / "noise")
    how = dict(seconds=1, size=6, noise=noise, noise_snr=(5, 5), noise_source=True)
    data = MixtureDataset(speech, n_src=1, **how)
    assert data.sources == ("speech", "noise")
    for mix, src in data:
        assert src.shape == (2, 1, RATE) and torch.equal(mix, src[0] + src[1])
        power = src.square().mean(dim=(1, 2))
        assert abs(float(10 * (power[0] / power[1]).log10()) - 5) < 0.01
    assert MixtureDataset(speech, n_src=2, **how).sources == ("s1", "s2", "noise")
    refuses(lambda: MixtureDataset(speech, noise_source=True), "no noise")


# ---- rooms


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"rt60": 2.0}, "mirror images"),
        ({"rt60": 0.7, "sources": [(1, 1, 1)] * 9}, "mirror images"),
        ({"rt60": float("nan")}, "rt60"),
        ({"rt60": -1}, "rt60"),
        ({"room": (3, 4)}, "room"),
        ({"room": (3, float("inf"), 2)}, "room"),
        ({"sample_rate": 10**9}, "sample_rate"),
        ({"sources": []}, "no sources"),
    ],
)
def test_rooms_that_ask_for_too_much(wrong, word):
    how = dict(room=(3, 4, 2.5), sources=[(1, 1, 1)], microphones=[(2, 2, 1.2)], sample_rate=RATE)
    refuses(lambda: room_responses(**(how | wrong)), word)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.opus", "a.flac", "a.au", "a.w64", "a.caf"])
@pytest.mark.parametrize("cache", [True, False])
def test_joined_files_are_read_to_their_end(tmp_path, name, cache):
    source = write(tmp_path / "source.wav", 2.0, 48000)
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, tmp_path / name], check=True)
    table(tmp_path, f"file\n{name}\n")
    one = Corpus(tmp_path, cache=cache)
    assert one.files.info[name].jumps and abs(one.length(0) - 96000) < 2500
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() * 2)
    two = Corpus(tmp_path, cache=cache)
    assert abs(two.length(0) - 2 * one.length(0)) < 2500 and two[0].shape[-1] == two.length(0)


def test_a_header_that_promises_too_little_hides_nothing(tmp_path):
    write(tmp_path / "a.flac", 2.0, 44100)
    raw = bytearray((tmp_path / "a.flac").read_bytes())
    raw[22:26] = (1000).to_bytes(4, "big")
    (tmp_path / "a.flac").write_bytes(raw)
    if shutil.which("ffmpeg"):
        assert Corpus(table(tmp_path, "file\na.flac\n"))[0].shape[-1] == 88200
    write(tmp_path / "a.wav", 2.0)
    raw = bytearray((tmp_path / "a.wav").read_bytes())
    raw[40:44] = (8000).to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(raw)
    assert Corpus(table(tmp_path, "file\na.wav\n"))[0].shape[-1] == 16000


@needs_ffmpeg
def test_cut_off_files_of_a_compressed_kind_are_refused(tmp_path):
    source = write(tmp_path / "source.wav", 4.0, 44100)
    for name in ("a.mp3", "a.flac"):
        subprocess.run(["ffmpeg", "-v", "error", "-i", source, tmp_path / name], check=True)
        raw = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(raw[: len(raw) // 2])
        refuses(lambda name=name: Corpus(table(tmp_path, f"file\n{name}\n")), name, "cut off")
