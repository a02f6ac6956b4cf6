"""Train a small Open-Unmix on songs with stems, and measure it on a song it has never heard.

    python benchmarks/train_openunmix.py FOLDER --minutes 10        results/train_openunmix.json
    python benchmarks/train_openunmix.py FOLDER --steps 5 --quick   writes nothing

FOLDER is a corpus as `sepbook.mixtures.Corpus` reads it: an index.csv with the columns `excerpt`
and `song`, and the stems of each excerpt in a folder of that name. One song is held out for the
measurement, chosen by the seed.
"""

import argparse
import json
from datetime import date
from pathlib import Path

import torch

from sepbook.learner import Learner
from sepbook.metrics import si_sdr
from sepbook.mixtures import Corpus, MixtureDataset, preload, split
from sepbook.models.mask_networks import OpenUnmix

RESULT = Path(__file__).resolve().parent.parent / "results" / "train_openunmix.json"


@torch.no_grad()
def gains(net: OpenUnmix, data: MixtureDataset) -> torch.Tensor:
    """Mean SI-SDR improvement in dB of each source over the items in which it sounds."""
    rows = []
    for i in range(len(data)):
        mix, src = data[i]
        gain = si_sdr(net(mix[None])[0], src) - si_sdr(mix.expand_as(src), src)
        rows.append(gain.mean(1).where(src.square().mean((1, 2)) > 1e-6, torch.nan))
    return torch.stack(rows).nanmean(0)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="write nothing")
    args = parser.parse_args()
    songs, unseen = split(Corpus(args.folder), by="song", seed=args.seed)
    preload(songs, None), preload(unseen, None)
    how = dict(seconds=4.0, remix=0.5, level_range=(-6.0, 6.0))
    train = MixtureDataset(songs, size=200, seed=args.seed, **how)
    test = MixtureDataset(unseen, size=4 if args.quick else 20, seconds=6.0, seed=1)
    torch.manual_seed(args.seed)
    shape = dict(sample_rate=train.sample_rate, channels=train.channels, n_fft=2048, hop=512)
    net = OpenUnmix(train.sources, hidden=args.hidden, n_layers=2, bandwidth=10000, **shape)
    net.fit_input(train[i][0] for i in range(20))
    learner = Learner(net, train, batch_size=4, seed=args.seed)
    learner.fit(minutes=args.minutes, steps=args.steps)
    reached = gains(net.eval(), test).tolist()
    card = learner.card()
    print(card["steps"], dict(zip(net.sources, reached)))
    headline = [
        {"what": f"SI-SDR gain of the {name}", "value": round(x, 1), "unit": "dB", "bar": "above 0"}
        for name, x in zip(net.sources, reached)
    ]
    if not args.quick:
        kept = {k: card[k] for k in ("class", "config", "parameters", "steps", "device", "seed")}
        told = {"title": "A small Open-Unmix trained on four songs, measured on a fifth"}
        songs_told = {"train": sorted({r["song"] for r in songs.rows})}
        songs_told["unseen"] = sorted({r["song"] for r in unseen.rows})
        told |= {"headline": headline, "date": date.today().isoformat()} | songs_told | kept
        RESULT.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
