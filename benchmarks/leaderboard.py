"""Every system so far on the same two mixtures: three seconds of the song, and two voices.

    python benchmarks/leaderboard.py        writes results/leaderboard.json

SI-SDR in dB. A system that learns sees the three seconds before, and the other sentences of
the two speakers. An oracle is given the true sources: it shows how far its kind of mask can go.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
import torch

from sepbook.classical.nmf import NMFSeparator
from sepbook.masks import oracle
from sepbook.metrics import evaluate
from sepbook.mixtures import Mixture, example_corpus, example_song

OUT = Path(__file__).resolve().parent.parent / "results" / "leaderboard.json"
MASKS = {
    "binary mask (oracle)": "ibm",
    "ratio mask (oracle)": "irm",
    "Wiener-like mask (oracle)": "wiener",
    "phase-sensitive mask (oracle)": "psm",
}


@dataclass
class Fixed:
    """A separator from a plain function: the mixture itself, or an oracle."""

    function: Callable
    sample_rate: int
    channels: int
    sources: tuple[str, ...]

    def __call__(self, mix):
        return self.function(mix)


def song_task() -> tuple[Mixture, torch.Tensor]:
    """Seconds 3 to 6 of the song, and its first three seconds to learn from."""
    song = example_song()
    half = 3 * song.sample_rate
    late = slice(half, 2 * half)
    test = song._replace(mix=song.mix[..., late], src=song.src[..., late])
    return test, song.src[..., :half]


def voices_task() -> tuple[Mixture, list[torch.Tensor]]:
    """One sentence of each of two speakers, added; and their other sentences to learn from."""
    corpus = example_corpus()
    spoken = {
        name: [corpus[i] for i, row in enumerate(corpus.rows) if row["speaker"] == name]
        for name in ("ada", "ben")
    }
    length = min(own[0].shape[-1] for own in spoken.values())
    src = torch.stack([own[0][..., :length] for own in spoken.values()])
    test = Mixture(src.sum(0), src, ("s1", "s2"), corpus.sample_rate)
    return test, [torch.cat(own[1:], -1) for own in spoken.values()]


def systems(test: Mixture, known, **nmf) -> Iterator[tuple[str, Callable]]:
    """Each system of the course, ready to be called with `test.mix`."""
    channels, about = test.mix.shape[0], (test.sample_rate, test.mix.shape[0], test.sources)
    n_fft = nmf["n_fft"]
    yield (
        "the mixture itself",
        Fixed(lambda x: x[:, None].expand(-1, len(test.src), -1, -1), *about),
    )
    model = NMFSeparator(test.sample_rate, channels, test.sources, **nmf)
    yield "NMF, a dictionary per source", model.fit(dict(zip(test.sources, known)))
    for name, mask in MASKS.items():
        ideal = lambda x, m=mask: oracle(x[0], test.src, m, n_fft=n_fft)[None]
        yield name, Fixed(ideal, *about)


def measure(test: Mixture, known, **nmf) -> tuple[dict[str, dict], dict[str, float]]:
    """SI-SDR by source for every system, and the seconds it took."""
    scores, seconds = {}, {}
    for name, system in systems(test, known, **nmf):
        started = time.perf_counter()
        table = evaluate(system, test, metrics=("si_sdr",))
        seconds[name] = time.perf_counter() - started
        scores[name] = dict(zip(table["source"], table["si_sdr"]))
    return scores, seconds


def main() -> None:
    song, _ = measure(*song_task(), rank=30, n_fft=2048, hop=512)
    voices, _ = measure(*voices_task(), rank=40, n_fft=512, hop=128)
    rows = []
    for name, score in song.items():
        numbers = {f"song: {k}": round(v, 1) for k, v in score.items()}
        mean = round(sum(score.values()) / len(score), 1)
        both = round(sum(voices[name].values()) / len(voices[name]), 1)
        rows.append({"system": name, **numbers, "song: mean": mean, "two voices": both})
    nmf, alone = (next(r for r in rows if r["system"].startswith(k)) for k in ("NMF", "the mix"))
    gain = lambda column: round(nmf[column] - alone[column], 1)
    result = {
        "title": "SI-SDR of every system on one song and on two voices",
        "command": "python benchmarks/leaderboard.py",
        "date": date.today().isoformat(),
        "device": "2 CPU cores",
        "headline": [
            {"what": "NMF on the song: SI-SDR gained", "value": gain("song: mean"), "unit": "dB"},
            {"what": "NMF on two voices: SI-SDR gained", "value": gain("two voices"), "unit": "dB"},
        ],
        "rows": rows,
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
