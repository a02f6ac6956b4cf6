"""Make a corpus of readers with other voices: another pitch, vocal tract and tempo (WORLD).

    python benchmarks/morphed_readers.py SPEECH OUT --without readers.txt --times 4

SPEECH is a corpus of readers, one of whom makes `--times` new ones; who is on the list stays out,
so that it can judge. Sounds keep their rate. Needs PyPI's pyworld. `benchmarks/train_denoiser.py`
takes OUT as one more corpus of `--speech`.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile as sf
from noises import write_tables
from speech_voices import world

from sepbook.engine.corpora import Corpus


def main() -> None:
    """Read, change, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("speech", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--without", type=Path, help="a list of speakers")
    parser.add_argument("--times", type=int, default=4, help="new voices of each reader")
    args = parser.parse_args()
    kept = set(args.without.read_text().split()) if args.without else set()
    corpus = Corpus(args.speech, channels=1).subset(lambda row: row["speaker"] not in kept)
    args.out.mkdir(parents=True, exist_ok=True)
    index, sources = [], []
    for number, (row, wav) in enumerate(world(corpus, args.times)):
        name = f"{row['speaker']}.{number}.flac"
        sf.write(args.out / name, 0.7 * wav / np.abs(wav).max(), corpus.sample_rate)
        seconds = round(len(wav) / corpus.sample_rate, 2)
        index.append(row | {"file": name, "seconds": seconds, "licence": "CC BY 4.0"})
        made_of = corpus.rows[number // args.times]["file"]
        sources.append({"file": name, "made of": made_of})
    write_tables(args.out, index, sources)
    print(f"{len(index)} voices, {sum(row['seconds'] for row in index) / 60:.0f} min")


if __name__ == "__main__":
    main()
