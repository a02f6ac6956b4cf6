"""Average the weights of denoisers that began alike, and keep what the validation hears best.

    python benchmarks/average_denoisers.py A B C --speech speech-train --noise noise ...
        --readers-out readers.txt --noises-out noises.txt --out denoise-16k.safetensors

A, B and C are weights that `benchmarks/train_denoiser.py` wrote, each trained from the same
beginning (which may be one of them). Each of them and each average of some of them, with equal
shares, is judged by the mixtures and the loss that chose the best step of each training. Source:
Wortsman et al., "Model soups", ICML 2022, arXiv:2203.05482.
"""

import argparse
import sys
from itertools import combinations
from pathlib import Path

import torch
from train_denoiser import RATE, validation

import sepbook
from sepbook.engine.corpora import Corpus
from sepbook.engine.weights import save
from sepbook.models.denoiser import LiveDenoiser
from sepbook.zoo import read_card


def averaged(models: list[LiveDenoiser]) -> LiveDenoiser:
    """The mean of weights, and of the statistics of batch normalization."""
    states = [model.state_dict() for model in models]
    mean = type(models[0])(**models[0].config)
    mean.load_state_dict(
        {
            name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
            for name, value in states[0].items()
        }
    )
    return mean.eval()


@torch.no_grad()
def judged(model: LiveDenoiser, items: list, spectral: float) -> float:
    """The loss of a validation, without the floor, as in training."""
    floor, model.floor = model.floor, 0.0
    total = sum(float(model.loss(mix[None], src[None], spectral)) for mix, src in items)
    model.floor = floor
    return total / len(items)


def main() -> None:
    """Average, judge, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--speech", type=Path, required=True, help="the corpus of readers")
    parser.add_argument("--noise", type=Path, nargs="+", required=True, help="one or more corpora")
    parser.add_argument("--readers-out", type=Path, required=True, help="a list of speakers")
    parser.add_argument("--noises-out", type=Path, required=True, help="a list of files")
    parser.add_argument("--spectral", type=float, default=10.0, help="weight of the spectra")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    people, kinds = (set(p.read_text().split()) for p in (args.readers_out, args.noises_out))
    noise = [Corpus(path, sample_rate=RATE, channels=1) for path in args.noise]
    speech = Corpus(args.speech, sample_rate=RATE, channels=1)
    items = validation(speech, noise, people, kinds)
    models = {path: sepbook.load(str(path)).eval() for path in args.models}
    tried = {}
    for size in range(1, len(models) + 1):
        for some in combinations(models, size):
            model = averaged([models[path] for path in some])
            tried[some] = judged(model, items, args.spectral), model
            print(f"{tried[some][0]:.3f}", *some, flush=True)
    some = min(tried, key=lambda some: tried[some][0])
    cards = [read_card(str(path)) for path in some]
    told = ("command", "data", "steps", "seconds_trained", "scores", "before")
    card = {key: cards[-1][key] for key in cards[-1] if key not in (*told, "best_step")}
    card |= {"command": "python " + " ".join(sys.argv), "data": cards[-1]["data"]}
    card |= {"scores": {"valid": tried[some][0]}, "mean of": [path.name for path in some]}
    card |= {"trainings": [{key: c[key] for key in told if key in c} for c in cards]}
    for key in ("class", "config", "format", "tied", "dtype", "sha256", "versions", "sepbook"):
        card.pop(key, None)
    save(tried[some][1], args.out, card, dtype="float16")


if __name__ == "__main__":
    main()
