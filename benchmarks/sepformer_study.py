"""What new mixtures are worth, and what untrained positions cost, at a very small scale.

    python benchmarks/sepformer_study.py            writes results/sepformer_study.json, 7 minutes
    python benchmarks/sepformer_study.py --quick    a few steps, writes nothing

The tiny SepFormer of chapter 45 learns from the course's synthetic voices: with eight mixtures of
one second, again and again, or with mixtures that never come twice, whose first eight those are.
Measured are the loss at the end of training and the SI-SDR gained on mixtures of three seconds
that no training has met, of the six voices of the training and of two others; and, for the
second, how its estimates of one second change when the positions across the chunks begin late.
"""

import time
from unittest import mock

import torch
from bench import figure, one_core, save
from torch import Tensor

from sepbook.learner import Learner
from sepbook.metrics import si_sdr
from sepbook.mixtures import Corpus, MixtureDataset, Speed, example_corpus
from sepbook.models import sepformer
from sepbook.models.sepformer import SepFormer, positions
from sepbook.pit import pairwise_neg_si_sdr, pit_loss, reorder

STEPS, SEEDS, SHIFTS = 300, (0, 1, 2), (20, 100, 760)
TINY = {"n_filters": 64, "kernel": 32, "chunk": 40, "blocks": 1, "layers": 2, "heads": 4}
TINY |= {"hidden": 128, "objective": "snr"}
HELD_BACK = ("ada", "hal")


def gain(network: SepFormer, items: list[tuple[Tensor, Tensor]]) -> float:
    """SI-SDR improvement in dB, mean over items and voices."""
    found = []
    for mix, src in items:
        with torch.no_grad():
            est = network.eval()(mix[None])
        est = reorder(est, pit_loss(pairwise_neg_si_sdr, est, src[None])[1])[0]
        found.append(float((si_sdr(est, src) - si_sdr(mix.expand_as(src), src)).mean()))
    return sum(found) / len(found)


def moved(steps: int):
    """Positions across the chunks that begin later; those along a chunk stay."""

    def late(length: int, channels: int, device: torch.device | None = None) -> Tensor:
        first = 0 if length == TINY["chunk"] else steps
        return positions(first + length, channels, device)[first:]

    return mock.patch.object(sepformer, "positions", late)


def shifted(network: SepFormer, items: list[tuple[Tensor, Tensor]]) -> dict[str, dict[str, float]]:
    """By steps: SI-SDR between the estimates as they are and with positions moved, and the gain."""
    found = {}
    for steps in (0, *SHIFTS):
        alike = []
        for mix, _ in items:
            with torch.no_grad():
                before = network.eval()(mix[None])
                with moved(steps):
                    after = network(mix[None])
            alike.append(float(si_sdr(after, before).mean()))
        with moved(steps):
            found[str(steps)] = {"gain": round(gain(network, items), 2)}
        if steps:
            found[str(steps)]["alike"] = round(sum(alike) / len(alike), 1)
    return found


def unheard(voices: Corpus, seconds: float, size: int) -> list[tuple[Tensor, Tensor]]:
    """Mixtures and sources that no training here has met."""
    data = MixtureDataset(voices, n_src=2, seconds=seconds, size=size, seed=77)
    return [data[k] for k in range(size)]


def run(name: str, seed: int, steps: int, data, tests: dict, short: list) -> dict:
    """Train one variant with one seed."""
    torch.manual_seed(seed)
    network = SepFormer(**TINY)
    started = time.process_time()
    how = {"batch_size": 4, "lr": 4e-3, "schedule": "cosine", "warmup": 10, "seed": seed}
    log = Learner(network, data, **how, log_every=1).fit(steps=steps, progress=False)
    row = {"data": name, "seed": seed, "cpu_seconds": round(time.process_time() - started, 1)}
    row["loss"] = round(float(log.loss.tail(20).mean()), 2)
    row |= {test: round(gain(network, items), 2) for test, items in tests.items()}
    if name == "endless mixtures":
        row["positions moved"] = shifted(network, short)
    print(row, flush=True)
    return row


def main() -> None:
    quick = one_core(__doc__.splitlines()[0])
    corpus = example_corpus()
    known = corpus.subset(lambda row: row["speaker"] not in HELD_BACK)
    unknown = corpus.subset(lambda row: row["speaker"] in HELD_BACK)
    tests = {"known voices": unheard(known, 3.0, 16), "held-back pair": unheard(unknown, 3.0, 16)}
    short = unheard(known, 1.0, 16)
    seeds, steps = (SEEDS[:1], 3) if quick else (SEEDS, STEPS)
    rows = []
    for seed in seeds:
        how = {"n_src": 2, "seconds": 1.0, "seed": seed + 1, "augment": Speed(0.05)}
        endless = MixtureDataset(known, **how, size=10_000)
        eight = [endless[k] for k in range(8)]
        for name, data in {"eight mixtures": eight, "endless mixtures": endless}.items():
            rows.append(run(name, seed, steps, data, tests, short))
    if quick:
        return
    headline = []
    for name in ("eight mixtures", "endless mixtures"):
        for test in tests:
            values = [row[test] for row in rows if row["data"] == name]
            what = f"tiny SepFormer, {name}, SI-SDR gain, {test}"
            headline.append(figure(what, round(sum(values) / len(values), 2), "dB"))
    save(
        "SepFormer, tiny: eight mixtures or endless ones; positions that were never trained",
        headline,
        "python benchmarks/sepformer_study.py",
        "1 CPU core",
        data="the course's synthetic voices, 1 s to learn from, 16 mixtures of 3 s measured",
        steps=STEPS,
        statistic=f"mean over seeds {SEEDS}",
        rows=rows,
    )


if __name__ == "__main__":
    main()
