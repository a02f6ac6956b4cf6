"""How much memory does a training take whose corpus doesn't fit into it?

Makes songs with four stems as WAV files with holes (they take next to no room on a disk that knows
sparse files), trains a small network on them with `sepbook train`, and measures the peak memory of
that process.
Run as `python benchmarks/corpus_memory.py`; it takes a minute, and writes
results/corpus_memory.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import soundfile as sf

RESULT = Path(__file__).resolve().parent.parent / "results" / "corpus_memory.json"
STEMS, RATE, SECONDS = ("vocals", "drums", "bass", "other"), 44100, 240
SOUNDING = 10  # seconds at the start of each file that are not silent
LINE = """train --model RecurrentMask --set hidden=8 --set sample_rate=44100 --set channels=2
    --seconds 2 --size 48 --batch-size 4 --epochs 1 --remix 0.5 --valid-size 4 --valid-seconds 4
    --device cpu --quiet"""


def make_song(folder: Path, seed: int) -> int:
    """A song of four stems, 16 bit, stereo; how many bytes of audio that is."""
    folder.mkdir(parents=True)
    rng, frames = np.random.default_rng(seed), RATE * SECONDS
    for stem in STEMS:
        path = folder / f"{stem}.wav"
        sf.write(path, 0.1 * rng.standard_normal((RATE * SOUNDING, 2)), RATE, "PCM_16")
        head = bytearray(path.read_bytes()[:44])
        head[4:8] = (36 + 4 * frames).to_bytes(4, "little")
        head[40:44] = (4 * frames).to_bytes(4, "little")
        with open(path, "r+b") as file:
            file.write(head)
            file.truncate(44 + 4 * frames)
    return len(STEMS) * 4 * frames


def measure(gigabytes: float, memory: float) -> dict:
    """Bytes of a corpus, and the peak memory of a training on it."""
    with tempfile.TemporaryDirectory() as place:
        size, count = 0, 0
        while size < 1e9 * gigabytes:
            size += make_song(Path(place, "songs", f"song {count}"), count)
            count += 1
        words = [*LINE.split(), "--data", f"{place}/songs", "--memory", str(memory)]
        words += ["--out", f"{place}/net.safetensors"]
        command = [sys.executable, "-m", "sepbook.cli", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
    return {"songs": count, "GB of audio": size / 1e9, "peak GB": round(peak / 1e9, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--memory", type=float, default=1.0, help="as --memory of sepbook train")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    found = measure(given.gigabytes, given.memory)
    what = f"training on {given.gigabytes:g} GB of audio read from disk: peak memory"
    headline = [{"what": what, "value": found["peak GB"], "unit": "GB", "bar": "under 3"}]
    about = {"title": "Training on much audio: peak memory", "headline": headline}
    about |= {"command": "python benchmarks/corpus_memory.py", "date": date.today().isoformat()}
    found = about | {"device": f"{os.cpu_count()} CPU cores"} | found
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(found)


if __name__ == "__main__":
    main()
