"""uPIT with each target and each activation, trained for the same time: the paper's table in small.

    python benchmarks/upit.py                   4 minutes each; writes results/upit.json
    python benchmarks/upit.py --minutes 10      longer
    python benchmarks/upit.py --quick           one step each, writes nothing

Six of the packaged voices are trained on, six sentences each. "heard voices" are new mixtures of
their other two sentences, "unseen voices" mixtures of the two left out, a man and a woman. Gains
are SI-SDR improvements in dB, with the outputs as they come ("default") and with every frame put
into its best order by an oracle ("optimal"). Frame-level PIT stands beside, for comparison.
"""

import argparse
import json
import os
import sys
from datetime import date
from pathlib import Path

THREADS = 2
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(THREADS)

import torch  # noqa: E402
from einops import rearrange  # noqa: E402

from sepbook.learner import Learner  # noqa: E402
from sepbook.metrics import si_sdr, si_sdr_improvement  # noqa: E402
from sepbook.mixtures import MixtureDataset, example_corpus, preload  # noqa: E402
from sepbook.pit import (  # noqa: E402
    ACTIVATIONS,
    TARGETS,
    UPIT,
    pairwise_mse,
    pairwise_neg_si_sdr,
    pit_loss,
    reorder,
)

RESULT = Path(__file__).resolve().parent.parent / "results" / "upit.json"
LEFT_OUT = ("cal", "fay")
SIZE = dict(hidden=128, layers=2, dropout=0.2)


def number(row: dict[str, str]) -> int:
    """Which sentence of its speaker a row is, from 1."""
    return int(Path(row["file"]).stem.split("-")[1])


def data(n_tests: int) -> tuple[MixtureDataset, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """The training set, and mixtures to measure on: name -> (mix, src)."""
    voices = preload(example_corpus())
    known = voices.subset(lambda row: row["speaker"] not in LEFT_OUT)
    train = MixtureDataset(known.subset(lambda row: number(row) <= 6), seconds=2, size=4000, seed=0)
    tests = {
        "heard voices": known.subset(lambda row: number(row) > 6),
        "unseen voices": voices.subset(lambda row: row["speaker"] in LEFT_OUT),
    }
    tests = {name: MixtureDataset(part, size=n_tests, seed=1) for name, part in tests.items()}
    return train, {name: tuple(torch.stack(x) for x in zip(*part)) for name, part in tests.items()}


def fold(spec: torch.Tensor) -> torch.Tensor:
    """Frames as items of the batch."""
    return rearrange(spec, "b s c f t -> (b t) s c f")


def frame_loss(net: UPIT, mix: torch.Tensor, src: torch.Tensor) -> torch.Tensor:
    """PIT with an order for every frame."""
    return pit_loss(pairwise_mse, *(fold(x) for x in net.spectra(mix, src)))[0]


@torch.no_grad()
def gains(net: UPIT, mix: torch.Tensor, src: torch.Tensor) -> dict[str, float]:
    """Mean SI-SDR improvement in dB: outputs as they come, and sorted frame by frame."""
    est = net(mix)
    est = reorder(est, pit_loss(pairwise_neg_si_sdr, est, src)[1])
    spec, (masked, wanted) = net.stft(mix), net.spectra(mix, src)
    order = pit_loss(pairwise_mse, fold(masked), fold(wanted))[1]
    masked = reorder(fold(masked), order)
    masked = rearrange(masked, "(b t) s c f -> b s c f t", b=len(mix)) * spec.sgn().unsqueeze(1)
    level = spec.abs().square().mean((1, 2, 3), keepdim=True).sqrt().unsqueeze(1)
    best = net.stft.inverse(masked * level, mix.shape[-1])
    return {
        "default": round(si_sdr_improvement(est, src, mix).mean().item(), 2),
        "optimal": round(si_sdr_improvement(best, src, mix).mean().item(), 2),
    }


def case(target: str, activation: str, frames: bool, train, tests, seed: int, goal: dict) -> dict:
    """Train one network and measure it."""
    torch.manual_seed(seed)
    net = UPIT(target=target, activation=activation, **SIZE)
    how = dict(
        lr=2e-3, schedule="cosine", warmup=20, seed=seed, loss=frame_loss if frames else None
    )
    learner = Learner(net, train, **how)
    log = learner.fit(**goal, progress=False)
    row = {"level": "frame" if frames else "utterance", "target": target, "activation": activation}
    row |= {name: gains(net.eval(), *pair) for name, pair in tests.items()}
    return row | {"steps": int(log.step.iloc[-1]), "loss": round(float(log.loss.iloc[-1]), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, default=4.0, help="for each network")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    train, tests = data(2 if args.quick else 40)
    goal = {"steps": 1} if args.quick else {"minutes": args.minutes}
    cases = [(t, a, False) for t in TARGETS for a in ACTIVATIONS] + [("psm", "relu", True)]
    rows = []
    for target, activation, frames in cases:
        rows.append(case(target, activation, frames, train, tests, args.seed, goal))
        print(*rows[-1].values(), sep="\t", flush=True)
    if args.quick:
        return
    grid: dict = {name: {} for name in tests}
    for row in rows:
        column = row["target"].upper() + (", per frame" if row["level"] == "frame" else "")
        for name in tests:
            grid[name].setdefault(column, {})[row["activation"]] = row[name]["default"]
    best = max(rows[:-1], key=lambda row: row["unseen voices"]["default"])
    what = "uPIT, {target}, {activation}, best of 12: SI-SDR gain on unseen packaged voices"
    mix, src = tests["unseen voices"]
    report = {
        "title": f"uPIT in small: SI-SDR gain (dB) after {args.minutes:g} minutes each",
        "headline": [
            {
                "what": what.format(**best),
                "value": best["unseen voices"]["default"],
                "unit": "dB",
            }
        ],
        "command": " ".join(["python benchmarks/upit.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "device": f"{THREADS} CPU cores",
        "seed": args.seed,
        "minutes": args.minutes,
        "network": SIZE | {"window": 256, "hop": 128},
        "mixture SI-SDR (dB)": round(si_sdr(mix[:, None].expand_as(src), src).mean().item(), 2),
    }
    report |= grid | {"rows": rows}
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
