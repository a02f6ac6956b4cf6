"""Voices to train a speech model with, from readers and from synthesisers, as one int16 array each.

    python benchmarks/speech_voices.py --data DATA --valid valid.txt --out voices

`--data` holds the corpora speech-train, words-train and digits-train (folders with index.csv).
Needs Debian's espeak-ng and flite, and PyPI's pyworld, none of which the package depends on; a part
whose tool is missing is left out. Everything is drawn with fixed seeds.

- readers: as they are, and at six other speeds (pitch and vocal tract move with the speed);
- world: each reader twice more, with other pitch, formants and tempo (the WORLD vocoder);
- espeak, flite: sentences of the course, read by synthesisers with many settings;
- words: people who say words and digits, ten in a row;
- recorded: the voices in Debian's packages that `benchmarks/recorded_voices.py` collected, if
  `--recorded` names them;
- synthetic: the voices that `benchmarks/synthetic_readers.py` made, if `--synthetic` names them.

A part NAME is stored as NAME.npy (samples at 8 kHz) and NAME.json (rows: speaker, sex if known,
start, stop). `benchmarks/train_speech.py` reads them.
"""

import argparse
import io
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

from sepbook.engine.corpora import Corpus
from sepbook.engine.files import resample

ROOT = Path(__file__).resolve().parent.parent
RATE, LEVEL = 8000, 0.08
SPEEDS = (80, 86, 93, 107, 115, 124)  # per cent
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029")
Voice = tuple[dict, np.ndarray]


def trimmed(wav: np.ndarray) -> np.ndarray:
    """Without silence at the ends, at one RMS level."""
    power = np.convolve(wav**2, np.ones(160) / 160, "same")
    on = np.flatnonzero(power > 1e-4 * power.max())
    wav = wav[max(0, on[0] - 400) : on[-1] + 400]
    return wav * (LEVEL / np.sqrt(np.mean(wav**2)))


def write(out: Path, name: str, voices: Iterator[Voice]) -> None:
    """Store a part, unless it is empty."""
    rows, parts, at = [], [], 0
    for row, wav in voices:
        if len(wav) < RATE // 2 or not np.abs(wav).max() > 1e-4:
            continue
        part = np.clip(np.round(trimmed(wav) * 32767), -32767, 32767).astype(np.int16)
        rows.append(row | {"start": at, "stop": at + len(part)})
        parts.append(part)
        at += len(part)
    if rows:
        np.save(out / f"{name}.npy", np.concatenate(parts))
        (out / f"{name}.json").write_text(json.dumps(rows))
    people = len({row["speaker"] for row in rows})
    print(f"{name}: {len(rows)} sounds, {people} voices, {at / RATE / 60:.0f} min", flush=True)


def to_rate(wav: np.ndarray, rate: int) -> np.ndarray:
    """At 8 kHz."""
    return resample(torch.from_numpy(wav.astype(np.float32))[None], rate, RATE)[0].numpy()


def readers(corpus: Corpus, percent: int = 100) -> Iterator[Voice]:
    """Readers at a speed."""
    for i, row in enumerate(corpus.rows):
        rate = corpus.sample_rate * percent // 100
        wav = resample(corpus[i], rate, RATE)[0].numpy()
        yield {"speaker": row["speaker"], "sex": row["sex"]}, wav


def others(corpus: Corpus) -> Iterator[Voice]:
    """Voices that the table names, without the sex."""
    for i, row in enumerate(corpus.rows):
        yield {"speaker": row["speaker"]}, resample(corpus[i], corpus.sample_rate, RATE)[0].numpy()


def between(x: np.ndarray, left: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Columns of x at places between two of them."""
    return np.ascontiguousarray((1 - part) * x[:, left] + part * x[:, left + 1])


def world(corpus: Corpus, times: int = 2) -> Iterator[Voice]:
    """Readers with another pitch, vocal tract and tempo, at the rate of the corpus."""
    import pyworld

    rng, rate = np.random.default_rng(4), corpus.sample_rate
    for i, row in enumerate(corpus.rows):
        wav = corpus[i][0].double().numpy()
        f0, at = pyworld.dio(wav, rate)
        f0 = pyworld.stonemask(wav, f0, at, rate)
        envelope, noise = pyworld.cheaptrick(wav, f0, at, rate), pyworld.d4c(wav, f0, at, rate)
        for k in range(times):
            warp = np.exp(rng.uniform(np.log(0.82), np.log(1.22)))
            pitch = np.exp(rng.uniform(np.log(0.7), np.log(1.45))) * warp**0.5
            tempo = np.exp(rng.uniform(np.log(0.85), np.log(1.18)))
            place = np.arange(envelope.shape[1]) / warp
            left = np.clip(place.astype(int), 0, envelope.shape[1] - 2)
            part = np.clip(place - left, 0, 1)
            shape = np.exp(between(np.log(envelope + 1e-16), left, part))
            air = between(noise, left, part)
            new = pyworld.synthesize(f0 * pitch, shape, air, rate, 5.0 * tempo)
            yield {"speaker": f"{row['speaker']}-{k}"}, new


def sentences() -> list[str]:
    """Plain sentences of the course's own text."""
    found = set()
    for path in sorted((ROOT / "nbs").glob("*/*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            text = "".join(cell["source"]).replace("\n", " ")
            if cell["cell_type"] == "markdown":
                found |= {s.lstrip("- ") for s in re.split(r"(?<=[.?!])\s+", text)}
    odd = re.compile(r"[$`#|\\<>\[\]_{}*=]|http")
    return sorted(s for s in found if 8 <= len(s.split()) <= 30 and not odd.search(s))


def spoken(command: list[str]) -> np.ndarray:
    """What a synthesiser writes to its standard output, at 8 kHz."""
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    wav, rate = sf.read(io.BytesIO(raw), dtype="float32")
    return to_rate(wav, rate)


def espeak() -> Iterator[Voice]:
    """Each variant of espeak-ng, with two accents and pitches."""
    if not shutil.which("espeak-ng"):
        return
    rng, text = random.Random(1), sentences()
    listed = subprocess.run(["espeak-ng", "--voices=variant"], capture_output=True, text=True)
    names = sorted(re.findall(r"!v/(\S+(?: \S+)*)", listed.stdout))
    odd = ("whisper", "robo", "demon", "croak", "alien", "fast")
    names = [n for n in names if not any(word in n.lower() for word in odd)]
    for k, name in enumerate(names):
        for accent in (ACCENTS[2 * k % len(ACCENTS)], ACCENTS[(2 * k + 1) % len(ACCENTS)]):
            pitch, speed = rng.randint(25, 75), rng.randint(135, 195)
            how = ["-v", f"{accent}+{name}", "-p", str(pitch), "-s", str(speed), "--stdout"]
            for _ in range(3):
                wav = spoken(["espeak-ng", *how, " ".join(rng.sample(text, 2))])
                yield {"speaker": f"espeak-{name}-{accent}"}, wav


def flite() -> Iterator[Voice]:
    """The four voices of flite."""
    if not shutil.which("flite"):
        return
    rng, text = random.Random(2), sentences()
    for name in ("awb", "rms", "slt", "kal16"):
        for _ in range(40):
            said = " ".join(rng.sample(text, 2))
            yield (
                {"speaker": f"flite-{name}"},
                spoken(["flite", "-voice", name, "-t", said, "/dev/stdout"]),
            )


def words(corpus: Corpus) -> Iterator[Voice]:
    """Ten words of one person in a row, with gaps of up to 0.2 s."""
    rng, sounds = random.Random(6), {}
    for i, row in enumerate(corpus.rows):
        sounds.setdefault(row["speaker"], []).append(i)
    for name, rows in sounds.items():
        rng.shuffle(rows)
        for k in range(0, min(len(rows), 150), 10):
            parts = []
            for i in rows[k : k + 10]:
                wav = corpus[i][0].numpy()
                gap = np.zeros(rng.randint(0, RATE // 5), np.float32)
                parts += [wav * (LEVEL / (np.sqrt(np.mean(wav**2)) + 1e-6)), gap]
            yield {"speaker": name}, np.concatenate(parts)


def main() -> None:
    """Write all parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpora")
    parser.add_argument(
        "--valid", type=Path, required=True, help="file with speakers to keep apart"
    )
    parser.add_argument("--recorded", type=Path, help="a corpus of recorded voices")
    parser.add_argument("--synthetic", type=Path, help="a corpus of synthetic readers")
    parser.add_argument("--out", type=Path, required=True, help="folder for the parts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    lines = args.valid.read_text().splitlines()
    kept = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
    everyone = Corpus(args.data / "speech-train")
    heard = everyone.subset(lambda row: row["speaker"] not in kept)
    write(args.out, "valid", readers(everyone.subset(lambda row: row["speaker"] in kept)))
    write(args.out, "readers", readers(heard))
    for percent in SPEEDS:
        write(args.out, f"readers{percent}", readers(heard, percent))
    for name, path in (("recorded", args.recorded), ("synthetic", args.synthetic)):
        if path:
            write(args.out, name, others(Corpus(path)))
    write(args.out, "espeak", espeak())
    write(args.out, "flite", flite())
    for name in ("words", "digits"):
        if (args.data / f"{name}-train").is_dir():
            write(args.out, name, words(Corpus(args.data / f"{name}-train")))
    try:
        morphed = ((row, to_rate(wav, heard.sample_rate)) for row, wav in world(heard))
        write(args.out, "world", morphed)
    except ImportError:
        print("world: left out; pip install pyworld")


if __name__ == "__main__":
    main()
