"""Train a small BSRNN with four stems on real and made songs, and write its weights.

    python -m sepbook.songs made --count 120 --seed 1000 --voices SPEECH
    python benchmarks/train_music.py --real music-stems --made made --leave-out 2.Lithium
        --minutes 70 --out bsrnn-4stems.safetensors

`--real` is a corpus of stems vocals, drums and other (the bass is part of other), `--made` one or
more with vocals, drums, bass and other. An item is a passage of one song, or stems of several.
Where "other" comes from a real song nobody knows its bass: the bass is left silent, and the loss
judges the sum of bass and other. A folder makes it resumable: the same command goes on. What is
written may be an average of the trained weights and those of `--init`, as a network on the way
between the two often knows more songs than either (Wortsman et al., arXiv:2109.01903).
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
from bench.recipe import LONG
from torch import Tensor
from torch.utils.data import Dataset

import sepbook
from sepbook.engine.corpora import Corpus
from sepbook.engine.examples import MUSDB_SOURCES
from sepbook.engine.weights import save
from sepbook.learner import Learner
from sepbook.models.bsrnn import BSRNN
from sepbook.pit import pairwise_neg_snr

BASS, OTHER = MUSDB_SOURCES.index("bass"), MUSDB_SOURCES.index("other")
RATE = 22050
SIZE = {"features": 64, "hidden": 64, "blocks": 4, "mask_hidden": 128}


def read(path: Path, cache: Path | None, keep=lambda row: True) -> list[np.ndarray]:
    """Songs as int16 (stem, time), decoded once where there is a cache."""
    corpus = Corpus(path, sample_rate=RATE, channels=1).subset(keep)
    rows, songs = {}, []
    for i, row in enumerate(corpus.rows):
        rows.setdefault(row["excerpt"], {})[row["stem"]] = i
    for name, stems in rows.items():
        stored = cache / f"{path.name}-{name}.npy" if cache else None
        if stored and stored.exists():
            songs.append(np.load(stored, mmap_mode="r"))
            continue
        wav = {stem: corpus[i][0].numpy() for stem, i in stems.items()}
        silence = np.zeros_like(next(iter(wav.values())))
        song = np.stack([wav.get(stem, silence) for stem in MUSDB_SOURCES])
        songs.append((32767 * song.clip(-1, 1)).astype(np.int16))
        if stored:
            cache.mkdir(parents=True, exist_ok=True)
            np.save(stored, songs[-1])
    return songs


class Passages(Dataset):
    """Items (mix, src) of four stems; those with a real "other" have a silent bass."""

    sample_rate, channels, sources = RATE, 1, MUSDB_SOURCES

    def __init__(self, real, made, seconds=4.0, size=1000, seed=0, share=0.5, remix=0.6):
        self.sets, self.frames, self.size = (real, made), round(seconds * RATE), size
        self.seed, self.share, self.remix, self.epoch = seed, share, remix, 0

    def __len__(self) -> int:
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Other items from now on."""
        self.epoch = epoch

    def passage(self, rng, real: bool, stems: slice) -> np.ndarray:
        """A passage of a song in which something sounds, a little faster or slower."""
        songs = self.sets[0 if real else 1]
        speed = rng.uniform(0.85, 1.18) if rng.random() < 0.7 else 1.0
        length = math.ceil(self.frames * speed) + 1
        for _ in range(8):
            song = songs[rng.integers(len(songs))]
            start = int(rng.integers(max(1, song.shape[1] - length)))
            wav = song[stems, start : start + length].astype(np.float32) / 32768
            if np.square(wav).mean() > 1e-5:
                break
        if wav.shape[1] < length:
            wav = np.pad(wav, ((0, 0), (0, length - wav.shape[1])))
        where = np.arange(self.frames) * speed
        return np.stack([np.interp(where, np.arange(length), w) for w in wav])

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, self.epoch, i])
        real = rng.random() < self.share
        if rng.random() < self.remix:
            src = np.zeros((4, self.frames))
            for stems in (slice(0, 1), slice(1, 2), slice(2, 4)):  # bass and other stay together
                mine = real if stems.start == BASS else rng.random() < self.share
                src[stems] = self.passage(rng, mine, stems)
        else:
            src = self.passage(rng, real, slice(0, 4))
        gain = rng.uniform(-5, 5, 4) + rng.uniform(-8, 2)
        gain[BASS:] = gain[OTHER] + (gain[BASS:] - gain[OTHER]) * 0.5
        src *= (10 ** (gain / 20) * rng.choice([-1, 1], 4) * (rng.random(4) > 0.08))[:, None]
        if real:
            src[BASS] = 0
        src /= max(1.0, np.abs(src.sum(0)).max() / 0.95)
        src = torch.from_numpy(src.astype(np.float32))[:, None]
        return src.sum(0), src


def loss(model: torch.nn.Module, mix: Tensor, src: Tensor) -> Tensor:
    """Negative SNR of each stem; where the bass is silent, it is judged with the other."""
    est = model(mix)
    unknown = (src[:, BASS].abs().amax((1, 2)) == 0)[:, None, None]
    bass, other = est[:, BASS], est[:, OTHER]
    parts = [*est[:, :BASS].unbind(1), bass.where(~unknown, 0 * bass)]
    est = torch.stack([*parts, torch.where(unknown, bass + other, other)], 1)
    return pairwise_neg_snr(est, src, ceiling_db=30.0).diagonal(dim1=1, dim2=2).mean()


def main() -> None:
    """Train, resume, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--made", type=Path, nargs="+", required=True)
    parser.add_argument("--leave-out", default="2.Lithium", help="a real song, for validation")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", help="weights to go on with")
    parser.add_argument("--average", type=float, default=1.0, help="1: only the trained weights")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--minutes", type=float, default=70)
    parser.add_argument("--folder", default=None, help="of checkpoints")
    parser.add_argument("--cache", type=Path, help="a folder for decoded songs")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    real = read(args.real, args.cache, lambda row: row["song"] != args.leave_out)
    apart = read(args.real, args.cache, lambda row: row["song"] == args.leave_out)
    made = [song for path in args.made for song in read(path, args.cache)]
    apart_made, made = made[:6], made[6:]
    how = {"trunk": "shared", "sample_rate": RATE, "channels": 1, "bands": "small"}
    how |= {"level": True, "consistent": True, "recompute": False, "objective": "snr"}
    model = sepbook.load(args.init) if args.init else BSRNN(MUSDB_SOURCES, **how, **SIZE)
    valid = [Passages(apart, made, size=32, seed=5, share=1.0, remix=0.0)[i] for i in range(32)]
    valid += [
        Passages(real, apart_made, size=16, seed=6, share=0.0, remix=0.0)[i] for i in range(16)
    ]
    learner = Learner(
        model,
        Passages(real, made, seed=args.seed, size=600),
        valid,
        loss,
        batch_size=4,
        lr=args.lr,
        seed=args.seed,
        folder=args.folder,
        **LONG,
    )
    learner.fit(minutes=args.minutes)
    data = f"{len(real)} passages of 4 real songs and {len(made)} made songs"
    story = {"data": f"{data}; kept apart: {args.leave_out}", "licence": "CC BY 4.0"}
    story["attribution"] = (
        "Software-Entwicklungskit, Everything is Free (CC0 1.0); made songs with "
    )
    story["attribution"] += (
        "LibriSpeech (c) 2014 Vassil Panayotov, from LibriVox recordings, and the "
    )
    story["attribution"] += "soundfonts FluidR3 (MIT) and MuseScore_General (MIT)"
    story["command"] = "python " + " ".join(sys.argv)
    best = learner.best()
    if args.init and args.average != 1:
        trained, before = best.state_dict(), sepbook.load(args.init).state_dict()
        mean = {n: w.lerp(trained[n], args.average) for n, w in before.items()}
        best.load_state_dict(mean)
    save(best, args.out, learner.card() | story, dtype="float16")


if __name__ == "__main__":
    main()
