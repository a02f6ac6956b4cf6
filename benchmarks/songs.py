"""Are songs made here in tune, and as loud as real ones?

    python benchmarks/songs.py REAL MADE VOICES     writes results/songs.json
    python benchmarks/songs.py REAL MADE VOICES --quick    one singer, writes nothing

REAL and MADE are corpora of stems (`python -m sepbook.songs` makes the second), VOICES a corpus of
speech. In tune: `--singers` readers sing a tune each; WORLD estimates the pitch of the result, and
the share of voiced frames within 50 cents of the written note is counted, glides and vibrato
included. Levels: each stem's active level relative to the mixture's, and the share of tenths of a
second in which it sounds. Bass counts as other where REAL has none.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from bench import figure, save
from songs_ablation import excerpts

from sepbook.mixtures import Corpus, MixtureDataset
from sepbook.songs import (
    HOP,
    analyse,
    draw_score,
    draw_voice,
    melody,
    sing,
    singing_range,
    sounding_level,
)

NAMES = {"vocals": "vocals", "drums": "drums", "other": "other"}


def in_tune(seed: int, voices: Corpus) -> dict:
    """One reader sings half a song: how much of it is in tune."""
    rng = np.random.default_rng([seed, 77])
    score, voice = draw_score(np.random.default_rng(seed)), draw_voice(voices, rng)
    low, seconds = singing_range(voice, rng), score.seconds / 2
    notes = [n for n in melody(score, low, seed) if n.start + n.length < seconds]
    f0 = analyse(sing(voice, notes, seconds, rng), voice.sample_rate).f0
    written, inner = np.full(len(f0), np.nan), np.zeros(len(f0), bool)
    for note in notes:
        a, b = round(note.start / HOP), round((note.start + note.length) / HOP)
        written[a:b], inner[a + 16 : b - 16] = note.pitch, True
    there = (f0 > 0) & ~np.isnan(written)
    cents = 100 * np.abs(69 + 12 * np.log2(f0[there] / 440) - written[there])
    spoken = voice.f0[voice.f0 > 0]
    return {
        "singer": seed,
        "spoken pitch (Hz)": round(float(np.median(spoken))),
        "notes": len(notes),
        "voiced": round(float(there.sum() / (~np.isnan(written)).sum()), 2),
        "within 50 cents": round(float((cents < 50).mean()), 2),
        "without the glides": round(float((cents < 50)[inner[there]].mean()), 2),
        "median distance (cents)": round(float(np.median(cents)), 1),
    }


def levels(songs: list[torch.Tensor], rate: int, sources: tuple[str, ...]) -> dict:
    """How loud each stem is, and how often it sounds, over songs."""
    found = {}
    for name, k in zip(sources, range(len(sources))):
        rows = []
        for src in songs:
            wav, mix = src[k, 0].numpy(), src.sum(0)[0].numpy()
            size = rate // 10
            power = np.square(wav[: len(wav) // size * size].reshape(-1, size)).mean(1)
            level = sounding_level(wav, rate) - sounding_level(mix, rate)
            if np.isfinite(level):
                rows.append((level, (power > power.max() / 1000).mean()))
        value = np.array(rows)
        low, high = value.min(0), value.max(0)
        found[f"{name} (dB)"] = f"{value[:, 0].mean():.1f} ({low[0]:.0f} to {high[0]:.0f})"
        found[f"{name} sounds"] = f"{value[:, 1].mean():.0%} ({low[1]:.0%} to {high[1]:.0%})"
    return found


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path)
    parser.add_argument("made", type=Path)
    parser.add_argument("voices", type=Path)
    parser.add_argument("--singers", type=int, default=8)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    voices = Corpus(args.voices, channels=1)
    real, made = Corpus(args.real, channels=1), Corpus(args.made, channels=1)
    sources = MixtureDataset(real, size=1).sources
    tune = [in_tune(seed, voices) for seed in range(1 if args.quick else args.singers)]
    rows = []
    for name, corpus in (("real", real), ("made", made)):
        songs = excerpts(corpus, sources)
        row = levels(songs, corpus.sample_rate, sources)
        rows.append({"songs": f"{name} ({len(songs)} excerpts)"} | row)
    print(tune, rows, sep="\n")
    if args.quick:
        return
    mean = lambda key: round(float(np.mean([row[key] for row in tune])), 2)
    save(
        "Songs made here: in tune, and as loud as real ones?",
        [
            figure(
                "voiced frames of made voices within 50 cents of the score", mean("within 50 cents")
            ),
            figure("the same, without glides", mean("without the glides")),
        ],
        "python benchmarks/songs.py REAL MADE VOICES",
        "1 CPU core",
        statistic="mean over excerpts (smallest to largest)",
        tune=tune,
        levels=rows,
    )


if __name__ == "__main__":
    main()
