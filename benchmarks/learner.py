"""What the learner costs on top of forward, backward and step, and what two processes change.

    python benchmarks/learner.py              writes results/learner.json
    python benchmarks/learner.py --quick      a few steps, writes nothing

The network is torchaudio's Conv-TasNet as it comes (two speakers), on pieces of 4 s at 8 kHz.
Both loops get the same batches, made beforehand, the same weights and Adam. The bare loop is
zero_grad, forward, backward, step. The learner does these too, seeds, clips, averages (EMA), logs
every ten steps and checks every number. They alternate, one step each; the overhead is the ratio
of the medians, with that of the minima, and that of processor time, beside it.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch
from torch import Tensor
from torchaudio.models import ConvTasNet

from sepbook.learner import Learner, Network

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "learner.json"
SECONDS, RATE = 4, 8000


class Wrapped(Network):
    """Torchaudio's Conv-TasNet, trained with L1."""

    def __init__(self):
        super().__init__()
        self.sample_rate, self.channels, self.sources = RATE, 1, ("s1", "s2")
        self.net = ConvTasNet(num_sources=2, msk_activate="relu")

    def forward(self, mix: Tensor) -> Tensor:
        return self.net(self.check(mix))[:, :, None]


def items(n: int) -> list[tuple[Tensor, Tensor]]:
    """Noise in the shape of two voices; the time of a step does not depend on what is said."""
    draw = torch.Generator().manual_seed(0)
    src = [torch.randn(2, 1, SECONDS * RATE, generator=draw) * 0.1 for _ in range(n)]
    return [(s.sum(0), s) for s in src]


def both() -> Tensor:
    """The time on the wall and of the processor, in seconds."""
    return torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64)


class Clock:
    """Makes the learner's data set hand over to the bare loop between two steps."""

    def __init__(self, data: list, bare, batch_size: int):
        self.data, self.bare, self.batch_size = data, bare, batch_size
        self.calls, self.theirs, self.ours, self.resumed = 0, [], [], None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        if self.calls % self.batch_size == 0:
            now = both()
            if self.resumed is not None:
                self.ours.append(now - self.resumed)
            self.bare()
            self.resumed = both()
            self.theirs.append(self.resumed - now)
        self.calls += 1
        return self.data[i]


def overhead(batch_size: int, steps: int, folder: str) -> dict:
    """Seconds of a step of the learner and of the bare loop, one after the other."""
    data = items(4 * batch_size)
    torch.manual_seed(0)
    model = Wrapped().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    mix, src = map(torch.stack, zip(*data[:batch_size]))

    def bare() -> None:
        optimizer.zero_grad()
        model.loss(mix, src).backward()
        optimizer.step()

    clock = Clock(data, bare, batch_size)
    torch.manual_seed(0)
    learner = Learner(Wrapped(), clock, batch_size=batch_size, ema=0.999, folder=folder)
    clock.calls, clock.theirs, clock.ours, clock.resumed = 0, [], [], None  # it has read some items
    learner.fit(steps=steps + 3, progress=False)
    (ours, our_work), (theirs, their_work) = (
        torch.stack(times[2:]).T.tolist() for times in (clock.ours, clock.theirs)
    )
    percent = lambda f, a, b: round(100 * (f(a) / f(b) - 1), 2)
    return {
        "batch_size": batch_size,
        "steps": len(ours),
        "seconds_bare": round(statistics.median(theirs), 4),
        "seconds_learner": round(statistics.median(ours), 4),
        "overhead_percent": percent(statistics.median, ours, theirs),
        "overhead_percent_of_minima": percent(min, ours, theirs),
        "overhead_percent_of_processor_time": percent(statistics.median, our_work, their_work),
    }


TWO = """
import sys
import torch
from safetensors.torch import save_file
from torch import nn
from sepbook.learner import Learner, Network
from sepbook.mixtures import MixtureDataset, example_corpus, preload

class Small(Network):
    def __init__(self):
        super().__init__()
        self.sample_rate, self.channels, self.sources = 8000, 1, ("s1", "s2")
        self.net = nn.Sequential(nn.Conv1d(1, 32, 17, padding=8), nn.ReLU(), nn.Conv1d(32, 2, 1))

    def forward(self, mix):
        return (self.net(mix).sigmoid() * mix)[:, :, None]

torch.set_num_threads(1)
torch.manual_seed(0)
data = MixtureDataset(preload(example_corpus()), seconds=1.0, size=12)
valid = MixtureDataset(data.corpus, seconds=1.0, size=5, seed=9)
parts = int(sys.argv[4])  # of a batch of four
options = dict(batch_size=4 // parts, accumulate=parts, clip=1e-3, ema=0.9, lr=0.01)
options |= dict(folder=sys.argv[2])
learner = Learner(Small(), data, valid, **options)
assert learner.accelerator.num_processes == int(sys.argv[3])
learner.fit(steps=5, progress=False)
if learner.accelerator.is_main_process:
    save_file(learner.model.state_dict(), sys.argv[1])
"""


# `accelerate launch --cpu` starts a single process unless MPI is there; torchrun starts two.
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def two_processes() -> float:
    """Largest difference between the weights after 5 steps with one and with two processes."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        (script := Path(folder) / "small.py").write_text(TWO)
        found = []
        for number, launch in ((1, []), (2, LAUNCH)):
            out = Path(folder) / f"{number}.safetensors"
            call = [sys.executable, *launch, script, out, Path(folder) / f"run{number}", number, 1]
            env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
            subprocess.run(list(map(str, call)), check=True, capture_output=True, env=env)
            found.append(load_file(out))
    one, two = found
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for batch_size in (1,) if args.quick else (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(overhead(batch_size, 3 if args.quick else args.steps, folder))
        print(*rows[-1].items(), sep="\t", flush=True)
    difference = two_processes()
    print("two processes against one, largest difference of a weight:", difference, flush=True)
    if args.quick:
        return
    worst = max(row["overhead_percent"] for row in rows)
    report = {
        "title": "Learner: cost on top of forward, backward and step; two processes against one",
        "headline": [
            {
                "what": "Learner on Conv-TasNet, 4 s at 8 kHz: time added to a step",
                "value": worst,
                "unit": "%",
                "bar": "under 3",
            },
            {
                "what": "Two processes against one after 5 steps: largest difference of a weight",
                "value": difference,
                "unit": "",
                "bar": "at most 1e-5",
            },
        ],
        "command": "python benchmarks/learner.py",
        "arguments": " ".join(sys.argv[1:]),
        "date": date.today().isoformat(),
        "device": f"{args.threads} CPU cores",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "network": "torchaudio.models.ConvTasNet(num_sources=2, msk_activate='relu')",
        "statistic": "median over steps, loops alternating step by step; the worst batch size",
        "rows": rows,
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
