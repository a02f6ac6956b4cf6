"""Names, pipes, lying headers, joined, cut off and damaged files, failing decoders, stem files."""

import concurrent.futures
import multiprocessing
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from sepbook.engine import examples, files
from sepbook.engine.files import (
    STEM_FORMATS,
    FfmpegDecoder,
    Recording,
    StemWriter,
    atomic,
    audio_files,
    file_name,
    is_hidden,
    load,
    measure,
    save,
    shown,
)

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg on the PATH")
RATE = 44100


def noise(seconds=1.0, channels=2, seed=0, rate=RATE):
    draw = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(channels, round(seconds * rate), generator=draw)


def ffmpeg(*words):
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, words)], check=True)


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and text.isprintable() and 20 < len(text) < 400, text
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


def read(path, **how):
    """All of a recording, its notes, and whether ffmpeg read it."""
    with Recording(path, **how) as file:
        wav = torch.cat(list(file.blocks(5000)), -1)
        return wav, file.notes, isinstance(file.decoder, FfmpegDecoder)


def encoded(folder, name, codec, seconds=1.0, *words):
    save(folder / "whole.wav", noise(seconds), RATE, "PCM_16")
    ffmpeg("-i", folder / "whole.wav", "-c:a", codec, *words, folder / name)
    return folder / name


CODECS = {"a.wav": "pcm_s16le", "u.wav": "pcm_mulaw", "b.wav": "adpcm_ms", "a.aiff": "pcm_s16be"}
CODECS |= {"a.au": "pcm_s16be", "a.caf": "pcm_s16le", "a.w64": "pcm_s16le", "a.flac": "flac"}
CODECS |= {"a.ogg": "libvorbis", "b.ogg": "flac", "a.mp3": "libmp3lame", "a.aac": "aac"}


# Joined


@needs_ffmpeg
@pytest.mark.parametrize("name", CODECS)
def test_joined_files_are_read_to_the_end(tmp_path, name):
    path = encoded(tmp_path, name, CODECS[name])
    once, notes, _ = read(path)
    path.write_bytes(2 * path.read_bytes())
    wav, notes, by_ffmpeg = read(path)
    assert abs(wav.shape[1] - 2 * once.shape[1]) < 1200 and not notes
    if not by_ffmpeg:
        assert torch.equal(wav, torch.cat([once, once], -1))
    assert load(path)[0].shape == wav.shape and measure(path) == (RATE, 2, wav.shape[1])


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.m4a", "a.wv", "a.wma", "a.tta"])
def test_joined_files_that_ffmpeg_would_halve_are_refused(tmp_path, name):
    codec = {"a.m4a": "aac", "a.wv": "wavpack", "a.wma": "wmav2", "a.tta": "tta"}[name]
    path = encoded(tmp_path, name, codec)
    assert read(path)[0].shape[1] > 40_000
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(ValueError) as error:
        load(path)
    one_line(error, name, "joins", "split it")


def test_joined_files_that_differ_are_refused(tmp_path):
    for rate, name in ((8000, "a.wav"), (16000, "b.wav")):
        save(tmp_path / name, noise(0.1, 1), rate)
    path = tmp_path / "two.wav"
    path.write_bytes((tmp_path / "a.wav").read_bytes() + (tmp_path / "b.wav").read_bytes())
    with pytest.raises(ValueError) as error:
        load(path)
    one_line(error, "differ", "1 channels at 8000 Hz and 1 channels at 16000 Hz")


# Headers that lie about the length


def patched(raw, mark, skip, value):
    at = raw.index(mark) + skip
    return raw[:at] + value + raw[at + len(value) :]


LIES = {
    "wav 0": ("a.wav", b"data", 4, bytes(4)),
    "wav ff": ("a.wav", b"data", 4, b"\xff" * 4),
    "wav 7f": ("a.wav", b"data", 4, b"\xff\xff\xff\x7f"),
    "wav less": ("a.wav", b"data", 4, struct.pack("<I", 40_000)),
    "ulaw 0": ("u.wav", b"data", 4, bytes(4)),
    "adpcm 0": ("b.wav", b"data", 4, bytes(4)),
    "aiff 0": ("a.aiff", b"SSND", 4, bytes(4)),
    "aiff no frames": ("a.aiff", b"COMM", 10, bytes(4)),
    "au 0": ("a.au", b".snd", 8, bytes(4)),
    "au ff": ("a.au", b".snd", 8, b"\xff" * 4),
    "caf ff": ("a.caf", b"data", 4, b"\xff" * 8),
    "w64 0": ("a.w64", b"data", 16, bytes(8)),
    "flac 0": ("a.flac", b"fLaC", 22, bytes(4)),
    "flac less": ("a.flac", b"fLaC", 22, struct.pack(">I", 20_000)),
}


@needs_ffmpeg
@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie_about_the_length(tmp_path, lie):
    name, mark, skip, value = LIES[lie]
    path = encoded(tmp_path, name, CODECS[name])
    whole = read(path)[0]
    raw = path.read_bytes()
    path.write_bytes(patched(raw, mark, skip, value))
    wav, notes, _ = read(path)
    assert torch.equal(wav, whole)
    assert notes == ([f"{name} is longer than its header says"] if "less" in lie else [])


def test_rf64_without_a_length(tmp_path):
    path = tmp_path / "a.rf64"
    sf.write(path, noise().T.numpy(), RATE, "PCM_16", format="RF64")
    whole = load(path)[0]
    path.write_bytes(patched(path.read_bytes(), b"ds64", 16, bytes(16)))
    assert torch.equal(load(path)[0], whole)


def test_an_empty_file_stays_empty(tmp_path):
    """Chunks behind no samples are no samples."""
    with sf.SoundFile(tmp_path / "a.wav", "w", RATE, 1) as file:
        file.title = "a title of some length, to stand behind the samples"
    with pytest.raises(ValueError) as error:
        load(tmp_path / "a.wav")
    one_line(error, "no samples")


def test_chunks_and_tags_behind_the_samples_are_no_sound(tmp_path):
    save(tmp_path / "a.wav", noise(), RATE, "PCM_16")
    raw = (tmp_path / "a.wav").read_bytes()
    for tail in (b"LIST" + struct.pack("<I", 200) + bytes(200), b"ID3" + bytes(500), bytes(999)):
        (tmp_path / "b.wav").write_bytes(raw + tail)
        assert torch.equal(load(tmp_path / "b.wav")[0], load(tmp_path / "a.wav")[0])


@needs_ffmpeg
def test_flac_of_unknown_length(tmp_path):
    save(tmp_path / "a.wav", noise(), RATE, "PCM_16")
    call = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "a.wav"), "-f", "flac", "-"]
    (tmp_path / "a.flac").write_bytes(subprocess.run(call, capture_output=True).stdout)
    assert torch.equal(load(tmp_path / "a.flac")[0], load(tmp_path / "a.wav")[0])
    assert measure(tmp_path / "a.flac") == (RATE, 2, RATE)


CLAIMS = {
    "rate 0": ("a.wav", b"fmt ", 12, bytes(4)),
    "rate 2^31": ("a.wav", b"fmt ", 12, struct.pack("<I", 2**31)),
    "no channels": ("a.wav", b"fmt ", 10, bytes(2)),
    "65535 channels": ("a.wav", b"fmt ", 10, b"\xff\xff"),
    "a million channels": ("a.au", b".snd", 20, struct.pack(">I", 10**6)),
    "au rate 2^31": ("a.au", b".snd", 16, struct.pack(">I", 2**31)),
}


@needs_ffmpeg
@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_that_no_sound_makes(tmp_path, claim):
    name, mark, skip, value = CLAIMS[claim]
    path = encoded(tmp_path, name, CODECS[name], 0.2)
    path.write_bytes(patched(path.read_bytes(), mark, skip, value))
    with pytest.raises(ValueError) as error:
        load(path)
    one_line(error, name)


# Cut off, damaged


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.m4a", "a.aiff", "a.ogg"])
def test_cut_off_files_say_so(tmp_path, name):
    how = ("-movflags", "+faststart") if name == "a.m4a" else ()
    path = encoded(tmp_path, name, {"a.m4a": "aac"}.get(name) or CODECS[name], 4.0, *how)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    wav, notes, _ = read(path)
    assert 1 < wav.shape[1] / RATE < 3 and len(notes) == 1
    seconds = f"{wav.shape[1] / RATE:.1f}"
    told = f"ends after {seconds} s" if name == "a.ogg" else f"{seconds} of 4.0 s"
    assert notes[0].startswith(f"{name} is cut off: ") and notes[0].endswith(told)
    with pytest.warns(UserWarning, match="is cut off"):
        assert torch.equal(load(path)[0], wav)


@needs_ffmpeg
def test_intact_files_give_no_notes(tmp_path):
    for name, codec in {**CODECS, "a.m4a": "aac", "a.webm": "libopus", "a.wma": "wmav2"}.items():
        assert read(encoded(tmp_path, name, codec, 0.7))[1] == [], name


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.ogg", "a.opus", "a.mp3", "a.flac"])
@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_repeat_nothing(tmp_path, name, seed):
    codec = {"a.opus": "libopus"}.get(name) or CODECS[name]
    path = encoded(tmp_path, name, codec, 3.0)
    whole = load(path)[0]
    raw = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    at = int(rng.integers(len(raw) // 3, len(raw) * 2 // 3))
    raw[at : at + 400] = rng.bytes(400)
    path.write_bytes(raw)
    wav, notes, by_ffmpeg = read(path)
    assert by_ffmpeg and notes and notes[0].startswith(f"{name} is ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(load(path)[0], wav)
    assert wav.shape[1] <= whole.shape[1] + 3000 and len(notes) <= 1
    for size in (4000, 40_000):  # no passage twice: all stretches differ
        parts = {p.numpy().tobytes() for p in wav[0].split(size)}
        assert len(parts) == -(-wav.shape[1] // size)
    start = whole[:, 10_000:30_000]
    assert (wav[:, 10_000:30_000] - start).abs().max() < 0.02  # what lies before the damage


# Decoders that fail


@needs_ffmpeg
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_decoder_is_an_error(tmp_path, number):
    path = encoded(tmp_path, "a.m4a", "aac", 60.0)
    with pytest.raises(OSError) as error, Recording(path) as file:
        for block in file.blocks():
            assert block.shape[1]
            os.kill(file.decoder.process.pid, number)
    one_line(error, "ffmpeg was", "a.m4a", "of 60.0 s")


@needs_ffmpeg
@pytest.mark.parametrize("code", [1, 137, 255])
def test_a_decoder_that_gives_up_is_an_error(tmp_path, monkeypatch, code):
    path = encoded(tmp_path, "a.m4a", "aac")
    real, stub = shutil.which("ffmpeg"), tmp_path / "bin" / "ffmpeg"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\n{real} "$@" | head -c 200000\necho no memory >&2\nexit {code}\n')
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub.parent}:{os.environ['PATH']}")
    with pytest.raises((OSError, ValueError)) as error:
        load(path)
    one_line(error, "a.m4a", "ffmpeg", "after 0.6 s of 1.0 s")


@needs_ffmpeg
def test_a_killed_decoder_leaves_no_stems(tmp_path):
    path = encoded(tmp_path, "a.m4a", "aac", 60.0)
    stems = StemWriter(tmp_path / "out", ["a"], RATE, 2)
    with pytest.raises(OSError), Recording(path) as file, stems as writer:
        for block in file.blocks():
            writer.write(block[None])
            file.decoder.process.kill()
    assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.m4a", "whole.wav"]


def test_without_ffmpeg(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RuntimeError) as error:
        load(tmp_path / "a.m4a")
    one_line(error, "a.m4a", "without ffmpeg", "install it")
    with pytest.raises(RuntimeError) as error:
        examples.decode_stream(tmp_path / "a.m4a", 0)
    one_line(error, "a.m4a", "without ffmpeg", "install it")


# Pipes, devices, names


def through_fifo(path, raw, action):
    """What an action makes of a pipe that somebody writes into."""
    os.mkfifo(path)
    writer = threading.Thread(target=Path(path).write_bytes, args=(raw,))
    writer.start()
    try:
        return action(path)
    finally:
        writer.join()


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.m4a"])
def test_pipes(tmp_path, name, monkeypatch):
    path = encoded(tmp_path, name, {"a.m4a": "aac"}.get(name) or CODECS[name])
    want, raw = load(path)[0], path.read_bytes()
    assert torch.equal(through_fifo(tmp_path / "fifo", raw, load)[0], want)
    with open(path, "rb") as file:
        monkeypatch.setattr(sys, "stdin", type("Standard", (), {"buffer": file, "isatty": bool}))
        assert torch.equal(load("-")[0], want)
    left, right = os.pipe()
    threading.Thread(target=lambda: (os.write(right, raw[:50_000]), os.close(right))).start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Recording(f"/dev/fd/{left}") as file:
                assert len(file.read(1000)) == 1000
    except ValueError as error:
        assert name == "a.m4a" and "nothing that" in str(error)  # its index was behind the end
    finally:
        os.close(left)


def test_what_is_no_file(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path, word in [
            (tmp_path / "socket", "socket"),
            ("/dev/zero", "device"),
            (tmp_path, "folder"),
        ]:
            with pytest.raises(ValueError) as error:
                load(path)
            one_line(error, word)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError) as error:
        load("-")
    one_line(error, "standard input is closed")
    with pytest.raises(ValueError) as error:
        through_fifo(tmp_path / "fifo", b"", load)
    one_line(error, "empty")
    for path in ("a" * 300, "a\0b"):
        with pytest.raises(OSError) as error:
            load(path)
        one_line(error, "can't be read")


NAMES = ["-i.wav", "~x.wav", "a\nb.wav", "%03d.png", "concat:a|b.wav", "http:x.wav", "a" * 240]
NAMES += ["\udcff\udc80.wav", " .wav", "...wav", "$(x).wav", "file:a.wav", "pipe:0", "#1?.wav"]


@needs_ffmpeg
@pytest.mark.parametrize("name", NAMES)
def test_names_are_only_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    source = encoded(tmp_path, "whole.m4a", "aac", 0.3).read_bytes()
    want = load("whole.m4a")[0]
    os.mkdir("in")
    for raw, expected in ((source, want), (Path("whole.wav").read_bytes(), load("whole.wav")[0])):
        for path in (name, Path("in") / name):
            with open(path, "wb") as file:
                file.write(raw)
            assert torch.equal(load(path)[0], expected)
            os.unlink(path)
    with StemWriter(Path("out") / file_name(name), ["a"], RATE) as writer:
        writer.write(want[None])
    assert writer.paths["a"].resolve().is_relative_to((tmp_path / "out").resolve())
    assert writer.paths["a"].parent.parent.resolve() == (tmp_path / "out").resolve()
    os.mkdir("home/\udcff")
    assert load(save(Path("home/\udcff") / "a.wav", noise(0.1), RATE))[0].shape == (2, 4410)
    if name.endswith(".wav"):
        save(name, noise(0.1), RATE)
        assert os.path.lexists(name) and load(name)[0].shape == (2, 4410)
    assert shown(name).isprintable()
    with pytest.raises((ValueError, OSError)) as error:
        load(Path("in") / f"gone{name}"[:200])
    one_line(error)


@needs_ffmpeg
@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile 'b.wav'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nb.wav\n#EXT-X-ENDLIST\n",
    ],
)
def test_lists_of_other_files_are_refused(tmp_path, text):
    save(tmp_path / "b.wav", noise(), RATE)
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError) as error:
        load(tmp_path / "a.txt")
    one_line(error, "a.txt", "give a file with sound")


def test_hidden_files(tmp_path):
    for name in ["b.wav", "a.mp3", ".DS_Store", "._b.wav", "x/c.flac", ".ipynb_checkpoints/b.wav"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "b.wav").touch()
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "notes.txt").touch()
    assert [p.name for p in audio_files(tmp_path)] == ["a.mp3", "b.wav"]
    assert [p.name for p in audio_files(tmp_path, deep=True)] == ["a.mp3", "b.wav", "c.flac"]
    path = tmp_path / ".x" / "a.wav"
    assert is_hidden(path, tmp_path) and not is_hidden(path)


# A passage


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.m4a"])
def test_start_and_duration(tmp_path, name):
    path = encoded(tmp_path, name, {"a.m4a": "aac"}.get(name) or CODECS[name], 2.0)
    whole = load(path)[0]
    for start, duration in [(0.0, 0.5), (0.7, None), (0.7, 0.5), (1.5, 9.0), (0.0, 1e-9)]:
        begin = round(start * RATE)
        end = None if duration is None else begin + max(1, round(duration * RATE))
        assert torch.equal(read(path, start=start, duration=duration)[0], whole[:, begin:end])
    with Recording(path, 0.7, 0.5) as file:
        assert file.seconds == 0.5
    for bad, words in [({"start": 9.0}, "start is 9 s"), ({"start": -1}, "start is -1")]:
        with pytest.raises(ValueError) as error:
            read(path, **bad)
        one_line(error, words)
    for bad in (0, -1, float("nan")):
        with pytest.raises(ValueError):
            read(path, duration=bad)


# Stem files


@pytest.mark.parametrize(
    ("suffix", "bits", "subtype"),
    [("wav", None, "FLOAT"), ("wav", 16, "PCM_16"), ("wav", 24, "PCM_24"), ("wav", 32, "FLOAT")]
    + [("flac", None, "PCM_24"), ("flac", 16, "PCM_16"), ("mp3", None, "MPEG_LAYER_III")]
    + [("ogg", None, "VORBIS"), ("opus", None, "OPUS")],
)
def test_formats_and_tags(tmp_path, suffix, bits, subtype):
    tags = {"title": "Tïtle", "artist": "A", "album": "B", "date": "1999", "tracknumber": "3"}
    src = torch.stack([noise(rate=48000), noise(seed=1, rate=48000)])
    how = {"suffix": suffix, "bits": bits, "tags": tags, "seconds": 1.0}
    with StemWriter(tmp_path / "out", ["a", "b"], 48000, 2, **how) as writer:
        for block in src.split(7000, -1):
            writer.write(block)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"a.{suffix}", f"b.{suffix}"]
    for wav, path in zip(src, writer.paths.values(), strict=True):
        with Recording(path) as file:
            assert file.tags == tags
            assert file.decoder.sound.subtype == subtype and file.sample_rate == 48000
            got = torch.cat(list(file.blocks()), -1)
        assert got.shape == wav.shape
        if suffix in ("wav", "flac"):
            assert (got - wav).abs().max() < 2**-15
        else:  # of noise, codecs keep the coarse shape
            assert torch.corrcoef(torch.stack([got[0], wav[0]]))[0, 1] > 0.5


def test_bit_rates(tmp_path):
    wav, sizes = noise(4.0)[None], {}
    for suffix, rate in [("mp3", 64), ("mp3", 320), ("ogg", 80), ("ogg", 256), ("opus", 64)]:
        hertz = 48000 if suffix == "opus" else RATE
        with StemWriter(tmp_path, ["a"], hertz, 2, suffix, bitrate=rate) as writer:
            writer.write(wav)
        kbps = writer.paths["a"].stat().st_size * 8e-3 / (wav.shape[-1] / hertz)
        assert 0.75 * rate < kbps < 1.35 * rate, (suffix, rate, kbps)
        sizes[suffix, rate] = kbps


WRONG = {
    "suffix": ({"suffix": "m4a"}, "suffix is 'm4a'"),
    "bits": ({"bits": 8}, "bits is 8"),
    "bits of flac": ({"suffix": "flac", "bits": 32}, "bits is 32"),
    "bits of mp3": ({"suffix": "mp3", "bits": 16}, "give bitrate instead"),
    "bit rate of wav": ({"bitrate": 128}, "keeps every sample"),
    "bit rate": ({"suffix": "mp3", "bitrate": 1000}, "bitrate is 1000"),
    "mp3 channels": ({"suffix": "mp3", "channels": 3}, "can't hold 3 channels"),
    "mp3 rate": ({"suffix": "mp3", "rate": 96000}, "can't hold 2 channels at 96000 Hz"),
    "opus rate": ({"suffix": "opus"}, "can't hold"),
    "same name": ({"template": "{name}"}, "two sources"),
    "double": ({"names": ["a", "a"]}, "two sources"),
    "case": ({"names": ["a", "A"]}, "two sources"),
    "source": ({"names": ["a/b", "c"]}, "can't be part of a file name"),
    "dots": ({"names": ["..", "c"]}, "can't be part of a file name"),
    "hidden": ({"names": [".a", "c"]}, "can't be part of a file name"),
    "name": ({"fields": {"name": "../x"}, "template": "{name}{stem}"}, "can't be part"),
    "long": ({"template": "{stem}" + 300 * "x"}, "too long"),
    "up": ({"template": "../{stem}"}, "begins with a dot"),
    "absolute": ({"template": "/tmp/{stem}"}, "step that is empty"),
    "home": ({"template": "~/{stem}"}, "begins with a dot or ~"),
    "brace": ({"template": "{stem"}, "a brace too many"),
    "field": ({"template": "{song}{stem}"}, "holds {song}"),
    "attribute": ({"template": "{stem.__class__}"}, "holds {stem.__class__}"),
    "line": ({"template": "a\n{stem}"}, "inside the output folder"),
    "only": ({"only": ["x"]}, "no source is called 'x'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_written_is_refused_first(tmp_path, case):
    how, words = WRONG[case]
    how = {"names": ["a", "b"], "rate": RATE, "channels": 2, "fields": {"name": "x"}} | how
    with pytest.raises(ValueError) as error:
        StemWriter(tmp_path / "out", **how)
    one_line(error, words)
    assert not list(tmp_path.iterdir())


def test_templates(tmp_path):
    fields, src = {"name": "song", "model": "net"}, noise(0.1)[None].repeat(2, 1, 1)
    for template, want in [
        ("{name}/{stem}", "song/a.wav"),
        ("{name} - {stem} ({model})", "song - a (net).wav"),
        ("{model}/{stem}.{ext}", "net/a.wav"),
        ("{stem}-{ext}", "a-wav"),
    ]:
        with StemWriter(tmp_path, ["a", "b"], RATE, template=template, fields=fields) as writer:
            writer.write(src)
        assert writer.paths["a"] == tmp_path / want and writer.paths["a"].is_file()
    (tmp_path / "c.wav").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        StemWriter(tmp_path, ["c"], RATE)


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    with pytest.raises(PermissionError) as error:
        StemWriter(tmp_path / "x" / "out", ["a"], RATE)
    one_line(error, "can't be written to")


def test_every_format_is_tried():
    assert set(STEM_FORMATS) == {"wav", "flac", "mp3", "ogg", "opus"}


# Many at once


def work(folder, k):
    """Save, separate and load files of the same names; each writer's sound is its own."""
    wav = torch.full((1, 20_000), 0.01 * (k + 1))
    for _ in range(3):
        save(folder / "shared.wav", wav, 8000, "FLOAT")
        got = load(folder / "shared.wav")[0]
        assert got.shape == wav.shape and (got == got[0, 0]).all()
        save(folder / f"own{k}.flac", wav, 8000)
        for place in ("stems", f"own{k}"):
            with StemWriter(folder / "out" / place, ["a", "b"], 8000) as writer:
                for block in torch.stack([wav, -wav]).split(6000, -1):
                    writer.write(block)
            a = load(folder / "out" / place / "a.wav")[0]
            assert a.shape == wav.shape and (a == a[0, 0]).all() and a[0, 0] > 0
        with atomic(folder / "text") as part:
            part.write_text(chr(65 + k) * 9999)
        assert len(set((folder / "text").read_text())) == 1
    got = load(folder / f"own{k}.flac")[0]
    assert (got - wav).abs().max() < 1e-6
    return True


def test_eight_threads_and_four_processes(tmp_path):
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=work, args=(tmp_path, 8 + k)) for k in range(4)]
    for other in others:
        other.start()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda k: work(tmp_path, k), range(8)))
    for other in others:
        other.join()
    assert [p.exitcode for p in others] == [0] * 4
    kept = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    places = ["stems", *(f"own{k}" for k in range(12))]
    want = {f"out/{p}/{n}.wav" for p in places for n in "ab"}
    assert kept == want | {f"own{k}.flac" for k in range(12)} | {"shared.wav", "text"}


def test_temporary_names_do_not_come_from_the_process(tmp_path, monkeypatch):
    """Containers that share a disk have equal process numbers, and may have equal clocks."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    names = set()
    for _ in range(50):
        with atomic(tmp_path / "a") as part:
            part.touch()
            names.add(part.name)
        with StemWriter(tmp_path / "out", ["a"], RATE) as writer:
            names.add(writer.hidden.name)
    assert len(names) == 100


def test_closed_standard_streams(tmp_path):
    """A file that takes the number of a closed stream must not take its text."""
    code = "import os, sys, torch\nfrom sepbook.engine.files import *\n"
    code += "save('a.wav', torch.zeros(1, 999), 8000)\n"
    code += "with StemWriter('out', ['a'], 8000) as w:\n    w.write(torch.zeros(1, 1, 999))\n"
    code += "    os.write(2, b'text of a library')\n"
    code += "    os.write(1, b'text of a library')\n"
    code += "assert load('out/a.wav')[0].shape == (1, 999) and not load('out/a.wav')[0].any()\n"
    call = ["sh", "-c", f'exec "{sys.executable}" -c "$0" <&- >&- 2>&-', code]
    assert subprocess.run(call, cwd=tmp_path).returncode == 0
    assert sf.info(tmp_path / "out" / "a.wav").frames == 999


# -- other members of the kinds


def as_ffmpeg_writes(folder, name, *options, seconds=1.0):
    """One second of noise, as ffmpeg writes it."""
    wave = 0.1 * np.random.default_rng(0).standard_normal((round(RATE * seconds), 2))
    sf.write(folder / "source.wav", wave, RATE)
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(folder / "source.wav"), *options]
    subprocess.run([*command, str(folder / name)], check=True)
    return folder / name


@needs_ffmpeg
@pytest.mark.parametrize(
    "name, codec", [("a.mka", "flac"), ("a.webm", "libopus"), ("a.flv", "aac")]
)
@pytest.mark.parametrize("times", [2, 3])
def test_joined_containers_are_refused_not_cut(tmp_path, name, codec, times):
    path = as_ffmpeg_writes(tmp_path, name, "-c:a", codec)
    assert load(path)[0].shape[-1] > 0.95 * RATE
    path.write_bytes(path.read_bytes() * times)
    with pytest.raises(ValueError, match="joins several recordings"):
        load(path)


@needs_ffmpeg
def test_joined_flac_behind_tags_and_without_a_length(tmp_path):
    raw = as_ffmpeg_writes(tmp_path, "a.flac").read_bytes()
    tag = b"ID3\3\0\0\0\0\10\0" + bytes(1024)
    (tmp_path / "tagged.flac").write_bytes((tag + raw) * 2)
    assert load(tmp_path / "tagged.flac")[0].shape[-1] == 2 * RATE
    with open(tmp_path / "stream.flac", "wb") as out:
        command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "a.flac"), "-f", "flac", "-"]
        subprocess.run(command, stdout=out, check=True)
    path = tmp_path / "stream.flac"
    assert load(path)[0].shape[-1] == RATE
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ValueError, match="joins several recordings without a length"):
        load(path)


@needs_ffmpeg
@pytest.mark.parametrize("codec", ["adpcm_ms", "adpcm_ima_wav", "libmp3lame"])
def test_a_cut_off_wav_of_a_compressed_kind_is_noted(tmp_path, codec):
    path = as_ffmpeg_writes(tmp_path, "a.wav", "-c:a", codec)
    with Recording(path) as file:
        assert sum(len(b[0]) for b in file.blocks()) and not file.notes
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match="is cut off"):
        load(path)


@needs_ffmpeg
@pytest.mark.parametrize(
    "name, codec", [("a.mka", "libopus"), ("a.wma", "wmav2"), ("a.m4a", "alac")]
)
def test_what_ffmpeg_stumbles_over_is_noted(tmp_path, name, codec):
    path = as_ffmpeg_writes(tmp_path, name, "-c:a", codec, seconds=3.0)
    with Recording(path) as file:
        assert sum(len(b[0]) for b in file.blocks()) and not file.notes
    raw = bytearray(path.read_bytes())
    if codec == "alac":
        raw[len(raw) // 2 : len(raw) // 2 + 300] = np.random.default_rng(0).bytes(300)
    path.write_bytes(raw if codec == "alac" else raw[: len(raw) * 2 // 3])
    with Recording(path) as file:
        assert sum(len(b[0]) for b in file.blocks())
    assert len(file.notes) == 1 and "cut off" in file.notes[0]


def test_a_file_that_is_called_dash_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sf.write("x.wav", np.zeros((100, 1)), 8000)
    os.replace("x.wav", "-")
    for name in ("./-", Path("-")):
        assert load(name)[0].shape == (1, 100)


def test_mp3_is_read_in_silence(tmp_path, capfd):
    """What libmpg123 finds odd is not printed past Python; what others print is kept."""
    whole = save(tmp_path / "a.mp3", noise(), RATE)
    raw = Path(whole).read_bytes()
    (tmp_path / "tail.mp3").write_bytes(raw + b"hello world" * 100)
    (tmp_path / "tag.mp3").write_bytes(b"ID3\x04\0\0\0\0\x01\0" + b"T" * 128 + raw)
    for name in ("a.mp3", "tail.mp3", "tag.mp3"):
        assert load(tmp_path / name)[0].shape == (2, RATE)
    assert capfd.readouterr().err == ""
    with files.without_chatter(), files.without_chatter():  # as two threads would
        os.write(2, b"[src/libmpg123/id3.c] error: Whoa!\na line of somebody else\n")
    os.write(2, b"and one after it\n")
    assert capfd.readouterr().err == "a line of somebody else\nand one after it\n"


def test_mp3_in_threads_keeps_stderr(tmp_path, capfd):
    """Readers at once share one detour, and stderr is what it was when all have ended."""
    place, before = save(tmp_path / "a.mp3", noise(), RATE), os.fstat(2)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        shapes = {wav.shape for wav, _ in pool.map(load, [place] * 32)}
    assert shapes == {(2, RATE)} and os.path.samestat(before, os.fstat(2))
