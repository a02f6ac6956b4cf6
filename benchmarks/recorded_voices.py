"""Make a corpus of recorded voices out of Debian's packages of prompts, of games and for learners.

    python benchmarks/recorded_voices.py OUT [--packages FOLDER] [--only NAME ...]

The packages of the list below are fetched by `apt-get download` (Debian 12; nothing is installed)
into FOLDER, and read where they lie. People say sentences, words, syllables and digits there, in
many languages; a dozen of a voice's sounds in a row make a track. All is mono at 16 kHz. A voice
gives ten minutes at most, and is left out if its pauses are louder than 38 dB below its speech (in
the quietest tenth of its sounds): who is to learn what speech is must not hear noise called speech.
index.csv has one row per track, with the voice as its speaker, and sources.csv one per sound, with
its package, version, path and the licence that debian/copyright states. Telephone prompts are read
with the command `ffmpeg`. The sounds themselves are not part of this project.
"""

import argparse
import io
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf
import soxr
from noises import fetched, sounds, write_tables

RATE, TRACK, MOST, LEVEL, FLOOR = 16000, 15, 600, -24, -38  # Hz, s, s, dB, dB
RAW = {"g722": 16000, "gsm": 8000}  # Hz, of telephone prompts without a header


class Package(NamedTuple):
    """What is taken from a package."""

    version: str
    licence: str
    voice: str  # a regular expression; what its group matches names the voice
    never: str = r"^$"  # what a path must not hold


PROMPTS = Package("1.6.1-1", "CC BY-SA 3.0", r"sounds/(\w+)/", "silence|beep")
PACKAGES = {
    **{f"asterisk-core-sounds-{name}-g722": PROMPTS for name in ("en", "es", "fr", "it", "ru")},
    "asterisk-prompt-es-co": Package("0.20070403-2.1", "GPL 2+", r"sounds/(\w+)/", "silence|beep"),
    "asterisk-prompt-fr-armelle": Package(
        "20070613-2.2", "GPL 2+", r"sounds/(\w+)/", "silence|beep"
    ),
    "asterisk-prompt-it-menardi-wav": Package(
        "1:1.4.22+mm20110907-3.1", "CC BY-SA 3.0", r"sounds/(\w+)/", "silence|beep"
    ),
    "festvox-ru": Package("0.5+dfsg-6", "BSD", r"(msu_ru_nsh)_clunits/wav/"),
    "hedgewars-data": Package("1.0.2-6", "GPL 2", r"voices/(\w+)/", "Robot|Singer"),
    "klettres-data": Package("4:22.12.3-1", "GPL 2+", r"klettres/(\w+)/"),
    "ktuberling-data": Package("4:22.12.3-1", "GPL 2+", r"sounds/(\w+)/"),
    "tuxpaint-stamps-default": Package("2022.06.04-1", "GPL 2", r"_desc_([a-z]+)\.ogg"),
}


def read(path: str, data: bytes) -> np.ndarray | None:
    """A sound at 16 kHz; None for no use."""
    kind = path.rsplit(".", 1)[1].lower()
    if kind in RAW:
        how = ["-f", kind, "-i", "-", "-f", "wav", "-"]
        done = subprocess.run(["ffmpeg", "-v", "error", *how], input=data, capture_output=True)
        data = done.stdout
    try:
        wav, rate = sf.read(io.BytesIO(data), always_2d=True)
    except sf.LibsndfileError:
        return None
    if len(wav) < 0.2 * rate or not np.abs(wav).max() > 1e-3:
        return None
    return soxr.resample(wav.mean(1) - wav.mean(), rate, RATE)


def powers(wav: np.ndarray) -> np.ndarray:
    """Mean square of frames of 20 ms."""
    frames = wav[: len(wav) // 320 * 320].reshape(-1, 320)
    return np.square(frames).mean(1) + 1e-12


def floor(wav: np.ndarray) -> float:
    """The quietest tenth of a second beside the speech, in dB."""
    power = powers(wav)
    calm = np.convolve(power, np.ones(5) / 5, "valid").min(initial=power.max())
    return 10 * np.log10(calm / np.quantile(power, 0.9))


def trimmed(wav: np.ndarray) -> np.ndarray:
    """Without the silence around the speech, at one RMS level."""
    power = powers(wav)
    on = np.flatnonzero(power > 1e-4 * power.max())
    wav = wav[max(0, 320 * on[0] - 480) : 320 * (on[-1] + 1) + 800]
    return wav * (10 ** (LEVEL / 20) / np.sqrt(np.mean(wav**2)))


def tracks(clips: list[np.ndarray], rng: np.random.Generator) -> list[tuple[np.ndarray, list[int]]]:
    """Clips in a row with pauses of 0.1 to 0.5 s: tracks, and which clips are in each."""
    out, parts, used, last = [], [], [], len(clips) - 1
    for n, k in enumerate(rng.permutation(len(clips))):
        parts += [clips[k], np.zeros(int(rng.uniform(0.1, 0.5) * RATE))]
        used.append(int(k))
        if n == last or sum(map(len, parts)) > TRACK * RATE:
            out.append((np.concatenate(parts), used))
            parts, used = [], []
    return out[: MOST // TRACK]


def main() -> None:
    """Fetch, read, join, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--packages", type=Path, help="folder of packages (default: OUT/packages)")
    parser.add_argument("--only", nargs="+", choices=list(PACKAGES), default=list(PACKAGES))
    args = parser.parse_args()
    folder = args.packages or args.out / "packages"
    for place in (folder, args.out):
        place.mkdir(parents=True, exist_ok=True)
    index, sources = [], []
    for package in args.only:
        rule, found = PACKAGES[package], {}
        for path, data in sounds(fetched(package, rule.version, folder)):
            voice = re.search(rule.voice, path)
            wav = read(path, data) if voice and not re.search(rule.never, path) else None
            if wav is not None:
                found.setdefault(voice[1], []).append((path, trimmed(wav), floor(wav)))
        told = {"package": package, "version": rule.version, "licence": rule.licence}
        for voice, clips in sorted(found.items()):
            paths, waves, floors = zip(*clips)
            loud, rng = float(np.quantile(floors, 0.1)), np.random.default_rng(0)
            made = tracks(list(waves), rng) if loud < FLOOR else []
            what = f"{len(made)} tracks" if loud < FLOOR else "left out"
            print(
                f"{package:34} {voice:20} {len(clips):4} sounds, {loud:5.1f} dB: {what}", flush=True
            )
            for k, (wav, used) in enumerate(made):
                name = f"{package}.{voice}.{k}.flac"
                sf.write(args.out / name, wav / max(1, np.abs(wav).max() / 0.9), RATE)
                row = {"file": name, "speaker": f"{package}.{voice}"}
                row |= {"seconds": round(len(wav) / RATE, 1), "licence": rule.licence}
                index.append(row | {"source": f"Debian's {package} {rule.version}"})
                sources += [{"file": name, **told, "path": paths[i]} for i in used]
    write_tables(args.out, index, sources)
    people = len({row["speaker"] for row in index})
    minutes = sum(row["seconds"] for row in index) / 60
    print(f"{people} voices, {len(index)} tracks, {minutes:.0f} min")


if __name__ == "__main__":
    main()
