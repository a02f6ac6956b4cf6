"""Train the second look on conversations of many voices, and write its weights.

    python benchmarks/train_speech.py --voices voices --noise noise --minutes 95 --out x.safetensors

`--voices` is what `benchmarks/speech_voices.py` wrote, `--noise` a corpus. Batches of four items
have 4, 8 or 16 s. With `--clips` the network of `--init` itself goes on, on four seconds in which
both speak all along. With `--three` it gets masks for a third voice, and goes on with three people
who speak all along. (With the loss of conversations, SA-SDR, the third output soon was silent for
good: what can't be told apart yet costs least if it is left out.) A folder makes it resumable: the
same command goes on where it stopped. `--data` is the corpus that the voices come from; the network
is measured on those of its speakers who were kept apart, for the card. What is written may be an
average of the trained weights and those of `--init`, as in `train_music.py`.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from bench.recipe import LONG

import sepbook
from sepbook.conversations import Conversations
from sepbook.engine.corpora import Corpus, preload
from sepbook.engine.experiments import (
    Mixtures,
    draw_mixtures,
    earlier,
    keep,
    nameless,
    open_corpus,
    save_measured,
)
from sepbook.learner import Learner
from sepbook.models.conv_tasnet import ConvTasNet
from sepbook.models.second_look import SecondLook

TALKS = {4: (0.55, 0.8), 8: (0.3, 0.3), 16: (0.15, 0.1)}  # s: share of batches, "together"
CLIPS = {4: (1.0, 1.0)}
SHARES = {
    "readers": 0.6,
    "recorded": 0.25,
    "synthetic": 0.25,
    "world": 0.25,
    "espeak": 0.09,
    "flite": 0.02,
    "words": 0.02,
    "digits": 0.02,
}
BATCH = 4
LICENCE = "CC BY 4.0"
BY = "LibriSpeech (c) 2014 Vassil Panayotov, from LibriVox recordings; Arabic Speech Commands "
BY += "Dataset v1 (A. Ghandoura, F. Hjabo, O. Al Dakkak, 2021); "
BY += "recorded voices of the Debian packages that benchmarks/recorded_voices.py names"
SYNTHETIC = "; synthetic voices of Kokoro-82M by hexgrad (Apache 2.0)"


class Voices:
    """The stored parts as one corpus; each part is drawn in its share."""

    sample_rate, channels = 8000, 1

    def __init__(self, folder: Path, names: list[str]):
        self.rows, self.waves = [], []
        for name in names:
            rows = json.loads((folder / f"{name}.json").read_text())
            part = name.rstrip("0123456789")
            weight = SHARES.get(part, 1.0) / len({row["speaker"] for row in rows})
            self.rows += [row | {"weight": weight, "wave": len(self.waves)} for row in rows]
            self.waves.append(np.load(folder / f"{name}.npy", mmap_mode="r"))

    def length(self, i: int) -> int:
        return self.rows[i]["stop"] - self.rows[i]["start"]

    def read(self, i: int, start: int, frames: int) -> torch.Tensor:
        row = self.rows[i]
        first = row["start"] + start
        wav = self.waves[row["wave"]][first : min(row["stop"], first + frames)]
        return torch.from_numpy(wav.astype(np.float32) / 32768)[None]


class Batches(torch.utils.data.Dataset):
    """Items of several lengths, one length for each batch."""

    def __init__(
        self, voices: Voices, noise: Corpus, lengths: dict, size: int, seed: int, n_src: int = 2
    ):
        self.size, self.seed, self.epoch = size, seed, 0
        how = {"rooms": 0.15, "noise": noise, "noise_share": 0.15, "size": size, "n_src": n_src}
        self.shares = [share for share, _ in lengths.values()]
        self.parts = [
            Conversations(
                voices,
                seconds,
                seed=seed + seconds,
                together=together,
                alone=0 if together == 1 else 0.08 if seconds < 6 else 0.1,
                **how,
            )
            for seconds, (_, together) in lengths.items()
        ]
        self.sample_rate, self.channels, self.sources = 8000, 1, self.parts[0].sources

    def __len__(self) -> int:
        return self.size

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        for part in self.parts:
            part.set_epoch(epoch)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self.seed, self.epoch, i // BATCH])
        return self.parts[rng.choice(len(self.parts), p=self.shares)][i]


def with_third(first: ConvTasNet) -> ConvTasNet:
    """The same network for three voices: the third's masks begin halfway between the others'."""
    model = ConvTasNet(**first.config | {"n_src": 3, "sources": None})
    state = first.state_dict()
    for name in ("masks.weight", "masks.bias"):
        one, two = state[name].chunk(2)
        state[name] = torch.cat([one, two, (one + two) / 2])
    model.load_state_dict(state)
    return model


def main() -> None:
    """Train, resume, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voices", type=Path, required=True)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the corpus behind the voices")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--init", default="conv-tasnet-2voices", help="or a second look to go on with"
    )
    parser.add_argument("--thaw", action="store_true", help="train the first network, too")
    parser.add_argument("--clips", action="store_true", help="train the network of --init alone")
    parser.add_argument("--three", action="store_true", help="the same, for three voices")
    parser.add_argument("--average", type=float, default=1.0, help="1: only the trained weights")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--precision", default="no", help="bf16: half as long again in the time")
    parser.add_argument("--minutes", type=float, default=95)
    parser.add_argument("--folder", default=None, help="of checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    first = sepbook.load(args.init)
    together = args.clips or args.three
    if args.three:
        model = with_third(first) if first.n_src == 2 else first
    elif args.clips:
        model = first
    elif isinstance(first, SecondLook):
        model = SecondLook(**first.config | {"frozen": not args.thaw})
        model.load_state_dict(first.state_dict())
    else:
        own = ("n_src", "sample_rate", "sources")
        settings = {k: v for k, v in first.config.items() if k not in own}
        model = SecondLook(first=settings, frozen=not args.thaw)
        model.first.load_state_dict(first.state_dict())
    names = sorted(path.stem for path in args.voices.glob("*.npy") if path.stem != "valid")
    voices, noise = Voices(args.voices, names), preload(Corpus(args.noise, 8000), level=None)
    valid = Voices(args.voices, ["valid"])
    n_src = 3 if args.three else 2
    short = Conversations(valid, 4, 48, 5, together=1, alone=0, n_src=n_src)
    talks = Conversations(valid, 12, 12, 6, together=0, alone=0.15)
    apart = [part[i] for part in (short, *([] if together else [talks])) for i in range(len(part))]
    learner = Learner(
        model,
        Batches(voices, noise, CLIPS if together else TALKS, 100 * BATCH, args.seed, n_src),
        apart,
        batch_size=BATCH,
        lr=args.lr,
        seed=args.seed,
        precision=args.precision,
        folder=args.folder,
        **LONG,
    )
    learner.fit(minutes=args.minutes)
    if args.average != 1:
        best, before = learner.best(), sepbook.load(args.init).state_dict()
        trained = best.state_dict()
        best.load_state_dict({n: w.lerp(trained[n], args.average) for n, w in before.items()})
        learner.best = lambda: best  # what is measured and saved
    people = len({row["speaker"] for row in voices.rows})
    kind = "clips" if together else "conversations"
    story = {"data": f"{kind} of {people} voices, real and synthesised", "licence": LICENCE}
    command = " ".join(["python", sys.argv[0], *map(nameless, sys.argv[1:])])
    story |= {"attribution": BY + SYNTHETIC * ("synthetic" in names), "command": command}
    card = learner.card()
    if before := getattr(first, "card", None):
        story |= earlier(before, card["seconds_trained"])
        story["before"]["scores"] = before["scores"]
    held, test = sorted({row["speaker"] for row in valid.rows}, key=int), Mixtures(4.0, 200)
    corpus = keep(open_corpus(str(args.data), model), held, "--data", but=False)
    learner.valid = draw_mixtures(corpus, model.sources, test, None)
    told = asdict(test) | {"names": held, "songs": False}
    print(save_measured(learner, args.out, card | story, told, "float16"))


if __name__ == "__main__":
    main()
