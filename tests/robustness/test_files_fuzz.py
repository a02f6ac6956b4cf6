"""400 damaged sounds of 20 formats and 200 damaged weight files: a result, or one clear line.

The seeded fuzzer makes the files; a process of its own reads them, so that a crash is seen. A hang
ends by an alarm. `test_files_fuzz.py sounds FOLDER 3000 7` tries 3000 with another seed.
"""

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

RATE = 8000
BY_SOUNDFILE = {  # name: format and subtype of soundfile
    "u8.wav": ("WAV", "PCM_U8"),
    "16.wav": ("WAV", "PCM_16"),
    "24.wav": ("WAV", "PCM_24"),
    "32.wav": ("WAV", "PCM_32"),
    "float.wav": ("WAV", "FLOAT"),
    "ulaw.wav": ("WAV", "ULAW"),
    "adpcm.wav": ("WAV", "MS_ADPCM"),
    "a.flac": ("FLAC", "PCM_16"),
    "a.ogg": ("OGG", "VORBIS"),
    "b.opus": ("OGG", "OPUS"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"),
    "a.aiff": ("AIFF", "PCM_16"),
    "a.au": ("AU", "PCM_16"),
    "a.caf": ("CAF", "PCM_16"),
    "a.w64": ("W64", "PCM_16"),
    "a.rf64": ("RF64", "PCM_24"),
}
BY_FFMPEG = {  # name: codec
    "a.m4a": "aac",
    "a.mp4": "aac",
    "a.aac": "aac",
    "a.webm": "libopus",
    "a.mkv": "flac",
    "a.wv": "wavpack",
    "a.wma": "wmav2",
}


def sources(folder: Path) -> dict[str, bytes]:
    """One intact file of each format: a second of noise under a tone."""
    rng = np.random.default_rng(0)
    wave = 0.2 * np.sin(np.arange(RATE) / 9)[:, None] + 0.05 * rng.standard_normal((RATE, 2))
    found = {}
    for name, (kind, subtype) in BY_SOUNDFILE.items():
        buffer = io.BytesIO()
        if kind == "W64":
            sf.write(folder / name, wave, RATE, subtype, format=kind)
            found[name] = (folder / name).read_bytes()
            continue
        sf.write(buffer, wave, RATE, subtype, format=kind)
        found[name] = buffer.getvalue()
    sf.write(folder / "whole.wav", wave, RATE)
    call = ["ffmpeg", "-v", "error", "-y", "-i", str(folder / "whole.wav")]
    for name, codec in BY_FFMPEG.items():
        call += ["-c:a", codec, str(folder / name)]
    subprocess.run(call, check=True)
    return found | {name: (folder / name).read_bytes() for name in BY_FFMPEG}


def damage(raw: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """One of ten kinds of damage, or two of them."""
    held = bytearray(raw)
    for _ in range(rng.integers(1, 3)):
        size = max(1, len(held))
        at, kind = int(rng.integers(size)), rng.integers(10)
        length = int(min(size - at, 2 ** rng.integers(0, 13)))
        head = int(rng.integers(min(size, 128)))
        if kind == 0:  # single bits
            for k in rng.integers(size, size=rng.integers(1, 20)):
                held[k] ^= 1 << rng.integers(8)
        elif kind == 1:
            del held[at:]
        elif kind == 2:  # a passage twice
            held[at:at] = held[at : at + length]
        elif kind == 3:  # a hole
            del held[at : at + length]
        elif kind == 4:
            held[at : at + length] = bytes(length)
        elif kind == 5:
            held[at : at + length] = rng.bytes(length)
        elif kind == 6:  # a number in the header
            numbers = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 10**6, size, size * 2, size // 2]
            order = "<I" if rng.integers(2) else ">I"
            held[head : head + 4] = struct.pack(order, int(rng.choice(numbers)))
        elif kind == 7:  # another file's end
            other = others[rng.integers(len(others))]
            held[at:] = other[int(rng.integers(len(other))) :]
        elif kind == 8:  # another file behind it
            held += others[rng.integers(len(others))]
        elif kind == 9:  # bytes of the header
            for k in rng.integers(min(size, 128), size=rng.integers(1, 6)):
                held[k] = rng.integers(256)
    return bytes(held)


class Hang(BaseException):
    """Raised by the alarm."""


def attempt(action) -> tuple[str, object]:
    """What an action gives: ("result", it), or ("error", its line); anything else is a fault."""

    def ring(*_):
        raise Hang

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            return "result", action()
    except (ValueError, OSError, RuntimeError) as error:
        text = str(error)
        own = type(error).__module__.startswith("sepbook")
        clear = own or type(error) in (ValueError, OSError, RuntimeError)
        good = clear and "\n" not in text and 20 < len(text) < 500 and text.isprintable()
        return ("error" if good else "fault"), f"{type(error).__name__}: {text!r}"
    except Hang:
        return "fault", "it hangs"
    except BaseException as error:
        return "fault", f"{type(error).__name__}: {error!r}"
    finally:
        signal.alarm(0)


def read_sounds(folder: Path, number: int, seed: int) -> list[str]:
    """Try `number` damaged sounds; the faults, a line each."""
    from sepbook.engine.files import FfmpegDecoder, Recording, load

    intact = sources(folder)
    names, others, faults = list(intact), list(intact.values()), []
    path, open_before = None, len(os.listdir("/proc/self/fd"))

    def blocks():
        with Recording(path) as file:
            size = sum(block.shape[1] for block in file.blocks(1000))
            return size, isinstance(file.decoder, FfmpegDecoder)

    def length():
        return load(path)[0].shape[1]

    tally = {"result": 0, "error": 0, "fault": 0}
    for k in range(number):
        name, rng = names[k % len(names)], np.random.default_rng([seed, k])
        path = folder / f"x.{name}"
        path.write_bytes(damage(intact[name], rng, others))
        print(k, name, flush=True)
        kind, got = attempt(blocks)
        tally[kind] += 1
        if kind == "fault":
            faults.append(f"{k} {name}: {got}")
        elif kind == "error" or not got[1] or k % 10 == 0:
            other, whole = attempt(length)
            if other == "fault" or kind != other or (other == "result" and whole != got[0]):
                faults.append(f"{k} {name}: Recording {kind} {got}, load {other} {whole}")
        path.unlink()
    if len(os.listdir("/proc/self/fd")) > open_before:
        faults.append("files stay open")
    print("tally", json.dumps(tally), flush=True)
    return faults


def damaged_card(rng: np.random.Generator, card: dict) -> dict:
    """A card with values that it should not have."""
    wrong = [-1, 0, 10**6, 10**12, 2**63, 1e308, True, None, "x", [], {}, [[]], "a" * 10_000]
    wrong += [float("nan"), [10**6] * 3, {"a": {"b": 1}}, "../../x", "\n\0"]
    card = json.loads(json.dumps(card))
    for _ in range(rng.integers(1, 3)):
        place = card["config"] if rng.integers(4) and card.get("config") else card
        key = sorted(place)[rng.integers(len(place))] if place else "format"
        if rng.integers(8) == 0:
            place.pop(key, None)
        else:
            place[key] = wrong[rng.integers(len(wrong))]
        if not isinstance(card.get("config"), dict):
            break
    return card


def damaged_weights(raw: bytes, rng: np.random.Generator, reseal) -> bytes:
    """A weight file with a damaged header, card or body; cards get a checksum that fits."""
    (size,) = struct.unpack("<Q", raw[:8])
    kind = rng.integers(12)  # six and more: the card
    if kind == 0:
        return raw[: rng.integers(len(raw))]
    if kind == 1:  # the header's length
        lies = [0, 1, 2, size - 1, size + 1, size * 2, 2**31, 2**63, 2**64 - 1]
        return struct.pack("<Q", lies[rng.integers(len(lies))]) + raw[8:]
    if kind == 2:
        held = bytearray(raw)
        for k in rng.integers(min(len(held), 8 + size), size=rng.integers(1, 9)):
            held[k] = rng.integers(256)
        return bytes(held)
    header = json.loads(raw[8 : 8 + size])
    if kind == 3:  # what the header says of a tensor
        name = sorted(n for n in header if n != "__metadata__")[rng.integers(len(header) - 1)]
        key = ["dtype", "shape", "data_offsets"][rng.integers(3)]
        wrong = ["F16", "X", [10**9, 10**9], [-1, 4], [0, 2**62], [], None, 7, [1.5]]
        header[name][key] = wrong[rng.integers(len(wrong))]
        text = json.dumps(header, separators=(",", ":"))
    elif kind == 4:  # nested deeply
        depth = int(rng.integers(10, 100_000))
        text = header["__metadata__"]["sepbook"]
        nested = '"config":' + "[" * depth + "]" * depth + ","
        header["__metadata__"]["sepbook"] = text.replace('"config":', nested + '"config":')
        text = json.dumps(header, separators=(",", ":"))
    else:
        card = damaged_card(rng, json.loads(header["__metadata__"]["sepbook"]))
        header["__metadata__"]["sepbook"] = json.dumps(card, separators=(",", ":"))
        text = json.dumps(header, separators=(",", ":"))
    text = text.encode()
    text += b" " * (-len(text) % 8)
    return reseal(struct.pack("<Q", len(text)) + text + raw[8 + size :])


def read_weights(folder: Path, number: int, seed: int) -> list[str]:
    """Try `number` damaged weight files; the faults, a line each."""
    import sepbook.zoo as zoo
    from sepbook.engine.weights import digest, reseal
    from sepbook.models import ConvTasNet

    net = ConvTasNet(n_filters=8, kernel=8, bottleneck=8, hidden=8, skip=8, blocks=2, repeats=1)
    raw = zoo.save(net, folder / "net.safetensors", {"data": "none"}).read_bytes()

    old = zoo.read_card(folder / "net.safetensors")["sha256"]

    def seal(held: bytes) -> bytes:
        return reseal(held, old, digest(held, old))

    tally, faults, path = {"result": 0, "error": 0, "fault": 0}, [], folder / "x.safetensors"
    for k in range(number):
        path.write_bytes(damaged_weights(raw, np.random.default_rng([seed, k]), seal))
        print(k, "weights", flush=True)
        kind, got = attempt(lambda: zoo.load(path))
        tally[kind] += 1
        if kind == "fault":
            faults.append(f"{k}: {got}"[:400])
        path.unlink()
    print("tally", json.dumps(tally), flush=True)
    return faults


def in_a_process(what: str, folder: Path, number: int, seed: int) -> tuple[list[str], dict]:
    """Run the fuzzer in a process of its own; its faults and its tally."""
    (folder / "tmp").mkdir()
    (folder / "work").mkdir()
    call = [sys.executable, __file__, what, str(folder / "work"), str(number), str(seed)]
    env = os.environ | {"TMPDIR": str(folder / "tmp"), "PYTHONFAULTHANDLER": "1"}
    done = subprocess.run(call, capture_output=True, text=True, env=env, timeout=600)
    lines = done.stdout.splitlines()
    if done.returncode:
        return [f"died with {done.returncode} at {lines[-1:]}: {done.stderr[-1500:]}"], {}
    split = next(k for k, line in enumerate(lines) if line.startswith("tally"))
    faults = [line for line in lines[split + 1 :] if line]
    left = [p for p in (folder / "tmp").iterdir() if "torchinductor" not in p.name]
    if left:
        faults.append(f"left behind: {left}")
    return faults, json.loads(lines[split].removeprefix("tally "))


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg on the PATH")
def test_damaged_sounds(tmp_path):
    faults, tally = in_a_process("sounds", tmp_path, 400, 0)
    assert not faults, "\n".join(faults)
    assert tally["result"] > 150 and tally["error"] > 20, tally


def test_damaged_weights(tmp_path):
    faults, tally = in_a_process("weights", tmp_path, 200, 0)
    assert not faults, "\n".join(faults)
    assert tally["error"] > 120, tally


if __name__ == "__main__":
    what, folder, number, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    tried = {"sounds": read_sounds, "weights": read_weights}[what](folder, number, seed)
    print("\n".join(tried))
