"""What do made songs bring? Train on real, on made and on both; measure on songs kept apart.

    python -m sepbook.songs MADE --count 80 --voices SPEECH
    python benchmarks/songs_ablation.py REAL MADE --minutes 3    writes results/songs_ablation.json
    python benchmarks/songs_ablation.py REAL MADE --quick        a few steps, writes nothing

REAL and MADE are corpora of stems as `sepbook.mixtures.Corpus` reads them; REAL has the columns
`excerpt` and `song`. A fold leaves one real song out (each in turn; `--folds` names fewer), trains
a small Open-Unmix on the other songs, and on them and MADE in turn, and measures all excerpts of
that song. MADE alone is trained on once, with as many steps, and measured on every song. `--unseen`
names a corpus of further made songs, of styles, sounds and voices that MADE lacks; they are
measured, too. The bass of made songs goes to "other" where REAL has no bass. SDR in dB is the
median over frames of one second in which the source sounds, then the mean over the song's excerpts.
The result is written after every training.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import torch  # noqa: E402
from bench import figure, save  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402

from sepbook.learner import Learner  # noqa: E402
from sepbook.mixtures import Corpus, MixtureDataset  # noqa: E402
from sepbook.models.mask_networks import OpenUnmix  # noqa: E402

SIZE = {"hidden": 96, "n_layers": 1, "bandwidth": 8000, "n_fft": 2048, "hop": 1024}
HOW = {"seconds": 3.0, "remix": 0.5, "level_range": (-6.0, 6.0), "size": 400}
BATCH = 4


class Merged(Dataset):
    """Items of several data sets in turn, with the wanted sources: bass is part of the rest."""

    def __init__(self, parts: list[MixtureDataset], sources: tuple[str, ...]):
        self.parts, self.sources = parts, sources
        self.sample_rate, self.channels = parts[0].sample_rate, parts[0].channels

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def set_epoch(self, epoch: int) -> None:
        """Pass it on."""
        for part in self.parts:
            part.set_epoch(epoch)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        part = self.parts[i % len(self.parts)]
        mix, src = part[i // len(self.parts)]
        return mix, only(src, part.sources, self.sources)


def only(src: Tensor, have: tuple[str, ...], want: tuple[str, ...]) -> Tensor:
    """Sources in the wanted order; those that are not wanted are added to "other"."""
    rest = sum(s for name, s in zip(have, src) if name not in want or name == "other")
    return torch.stack([rest if n == "other" else src[have.index(n)] for n in want])


def excerpts(corpus: Corpus, sources: tuple[str, ...]) -> list[Tensor]:
    """The stems (source, channel, time) of all excerpts."""
    found = {}
    for k, row in enumerate(corpus.rows):
        found.setdefault(row["excerpt"], {})[row["stem"]] = corpus[k]
    return [only(torch.stack([*s.values()]), tuple(s), sources) for s in found.values()]


def sdr(est: Tensor, src: Tensor, rate: int) -> Tensor:
    """Median over frames of one second, in dB, of each source; NaN where it never sounds."""
    frames = src.shape[-1] // rate
    cut = lambda wav: wav[..., : frames * rate].unflatten(-1, (frames, rate)).square().sum((1, 3))
    power, error = cut(src), cut(src - est)
    value = 10 * (power / error.clamp(min=1e-9)).log10()
    return value.where(power / rate > 1e-5, torch.nan).nanmedian(-1).values


@torch.no_grad()
def measure(net: OpenUnmix | None, songs: list[Tensor], rate: int) -> list[float]:
    """Mean over excerpts; without a network, the mixture itself is the estimate."""
    rows = []
    for src in songs:
        mix = src.sum(0)
        rows.append(sdr(net(mix[None])[0] if net else mix.expand_as(src), src, rate))
    return [round(float(x), 2) for x in torch.stack(rows).nanmean(0)]


def train(parts: Sequence[Corpus], sources: tuple[str, ...], steps: int, seed: int) -> OpenUnmix:
    """A small network after so many steps, on as many items of each corpus."""
    data = Merged([MixtureDataset(part, seed=seed, **HOW) for part in parts], sources)
    torch.manual_seed(seed)
    net = OpenUnmix(sources, sample_rate=data.sample_rate, channels=data.channels, **SIZE)
    net.fit_input(data[i][0] for i in range(20))
    learner = Learner(net, data, batch_size=BATCH, lr=2e-3, schedule="cosine", seed=seed)
    learner.fit(steps=steps, progress=False)
    return net.eval()


def timed(work: Callable) -> tuple:
    """What it returns, and the CPU minutes it took."""
    started = time.process_time()
    return work(), (time.process_time() - started) / 60


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path)
    parser.add_argument("made", type=Path)
    parser.add_argument("--unseen", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0, help="CPU minutes for each training")
    parser.add_argument("--folds", nargs="*", help="real songs to leave out")
    parser.add_argument("--note", default="", help="what else to say about the data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    real = Corpus(args.real, channels=1)
    made = Corpus(args.made, sample_rate=real.sample_rate, channels=1)
    sources = MixtureDataset(real, size=1).sources
    names = sorted({row["song"] for row in real.rows})
    unseen = []
    if args.unseen:
        unseen = excerpts(Corpus(args.unseen, sample_rate=real.sample_rate, channels=1), sources)
    train([real], sources, 2, 0)  # the first steps are slow
    per_step = timed(lambda: train([real], sources, 12, 0))[1] / 12
    steps = 3 if args.quick else round(args.minutes / per_step)
    print(
        f"{60 * per_step:.2f} CPU seconds for a step: {steps} steps for each training", flush=True
    )
    rows, learn = [], lambda *parts: timed(lambda: train(parts, sources, steps, args.seed))
    of_made = learn(made)
    for fold in args.folds or names:
        others = real.subset(lambda row, fold=fold: row["song"] != fold)
        kept = excerpts(real.subset(lambda row, fold=fold: row["song"] == fold), sources)
        nets = {
            "mixture": lambda: (None, 0),
            "real": partial(learn, others),
            "made": lambda: of_made,
            "both": partial(learn, others, made),
        }
        for trained_on, job in nets.items():
            net, spent = job()
            row = {"left out": fold, "trained on": trained_on, "steps": steps if net else 0}
            row |= {"cpu_minutes": round(spent, 2)}
            row["sdr"] = dict(zip(sources, measure(net, kept, real.sample_rate)))
            if unseen:
                row["sdr of unseen made songs"] = dict(
                    zip(sources, measure(net, unseen, real.sample_rate))
                )
            rows.append(row)
            print(row, flush=True)
            if not args.quick:
                write(rows, args, sources, names, made)


def write(rows: list, args: argparse.Namespace, sources: tuple, names: list, made: Corpus) -> None:
    """What has been measured so far."""
    mean = lambda row: sum(row["sdr"].values()) / len(row["sdr"])
    lines = []
    for what in ("mixture", "real", "made", "both"):
        of = [mean(row) for row in rows if row["trained on"] == what]
        if of:
            name = "the mixture itself" if what == "mixture" else f"trained on {what}"
            lines.append(figure(f"SDR, {name}", round(sum(of) / len(of), 2), "dB"))
    save(
        "Songs made here: what they bring to a small Open-Unmix",
        lines,
        f"python benchmarks/songs_ablation.py REAL MADE --minutes {args.minutes:g}",
        "1 CPU core",
        minutes=args.minutes,
        seed=args.seed,
        network={"class": "OpenUnmix", **SIZE},
        sources=sources,
        real_songs=names,
        made_songs=len({row["excerpt"] for row in made.rows}),
        statistic="median over frames of 1 s, mean over excerpts of the song left out",
        note=args.note,
        rows=rows,
    )


if __name__ == "__main__":
    main()
