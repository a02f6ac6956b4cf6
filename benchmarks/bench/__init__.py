"""What the benchmarks of networks share: equal weights, runs side by side, processes, reports.

A benchmark gives `build(which, size)`: the network "ours" or a peer's, None where that is missing.
Runs alternate; a ratio is the median over pairs of neighbouring runs, a time that of the fastest
run. Both are over several processes that build the networks in another order each, because where
weights happen to lie in memory, and what else a machine does, makes 5 to 10 % of a small LSTM.
Peak memory, and whatever is long, is measured in a process of its own. Processes are the benchmark
itself, called with `--child`. What is measured on is 4 s of mono at 8 kHz, unless the benchmark
gives another `Audio` to `start`.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

THREADS = 2
LEAST = [8.0]  # seconds that runs are repeated for in each process; `--least` sets it
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, str(THREADS))

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from sepbook.engine.weights import translators  # noqa: E402
from sepbook.separate import separate  # noqa: E402
from sepbook.zoo import import_weights  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / ".peers"))


@dataclass(frozen=True)
class Audio:
    """What the mixture is that everything is measured on."""

    seconds: float = 4.0
    channels: int = 1
    rate: int = 8000  # Hz
    batch: int = 1


AUDIO = [Audio()]  # the one in use


def start(
    doc: str, build: Callable, repeats: int = 4, audio: Audio = Audio(), **more
) -> argparse.Namespace:
    """Read the command line; a child does its task here and ends."""
    AUDIO[0] = audio
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=repeats, help="processes of a comparison")
    parser.add_argument("--least", type=float, default=LEAST[0], help="seconds of runs in each")
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    LEAST[0] = args.least
    warnings.simplefilter("ignore")
    torch.set_num_threads(THREADS)
    if args.child:
        _child(build, *args.child)
        sys.exit()
    return args


def use(size: dict) -> dict:
    """The other arguments of a network whose `size` brings audio of its own."""
    if "audio" in size:
        AUDIO[0] = Audio(*size["audio"])
    return {name: value for name, value in size.items() if name != "audio"}


def noise(seconds: float | None = None) -> Tensor:
    """The mixture (batch, channel, time) that everything is measured on."""
    audio, draw = AUDIO[0], torch.Generator().manual_seed(1)
    frames = round(audio.rate * (audio.seconds if seconds is None else seconds))
    return torch.randn(audio.batch, audio.channels, frames, generator=draw)


def forward(network: nn.Module, mix: Tensor) -> None:
    """Separate, without gradients."""
    network.eval()
    with torch.no_grad():
        network(mix)


def step(network: nn.Module, mix: Tensor, adam: torch.optim.Optimizer) -> None:
    """One step of training."""
    network.train()
    adam.zero_grad()
    network(mix).abs().mean().backward()
    adam.step()


def peak_gb() -> float:
    """The most memory that this process has held; getrusage would count its parent's, too."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9, 2)


def _child(build: Callable, which: str, size: str, task: str, amount: str) -> None:
    """Do a task, and print what it took."""
    torch.manual_seed(0)
    if task == "compare":
        print(json.dumps(_compare(build, json.loads(size), which.split(","), float(amount))))
        return
    network = build(which, use(json.loads(size)))
    mix = noise(float(amount))
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)
    half = next(network.parameters()).dtype == torch.bfloat16
    how = {"precision": "bf16" if half else "no"}
    runs = {
        "forward": lambda: forward(network, mix),
        "train": lambda: step(network, mix, adam),
        "separate": lambda: separate(network, mix[0], AUDIO[0].rate, progress=False, **how),
    }
    for _ in range(2 if task == "train" else 1):  # the optimiser's memory comes with the first
        started = time.perf_counter()
        runs[task]()
        spent = time.perf_counter() - started
    print(json.dumps({"seconds": round(spent, 3), "peak_gb": peak_gb()}))


def _call(which: str, size: dict, task: str, amount: float) -> dict:
    """What `_child` prints in a process of its own."""
    command = [sys.executable, sys.argv[0], "--child", which, json.dumps(size), task, str(amount)]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


def alone(which: str, size: dict, task: str, seconds: float | None = None) -> dict[str, float]:
    """Seconds and peak memory (GB) of "forward", "train" or "separate", in its own process."""
    return _call(which, size, task, AUDIO[0].seconds if seconds is None else seconds)


def keep_memory() -> None:
    """What is freed stays with the process (Linux): no run depends on how soon it gets pages."""
    with suppress(AttributeError):
        settings = {-1: -1, -4: 0}  # M_TRIM_THRESHOLD (-1: never), M_MMAP_MAX
        for name, value in settings.items():
            ctypes.CDLL(None).mallopt(name, value)


def alternate(run: Callable, networks: dict, repeats: int, least: float) -> dict[str, list]:
    """(seconds by the clock, CPU seconds) of all runs of each network, which take turns.

    There are so many repeats, or, where that is sooner over, what `least` seconds hold.
    """
    keep_memory()
    runs = {name: [] for name in networks}
    for network in [*networks.values()] * 2:  # an optimiser's state comes late, and moves the rest
        run(network)
    started, done = time.perf_counter(), 0
    while done < repeats or time.perf_counter() - started < least:
        for name, network in networks.items():
            clock, cpu = time.perf_counter(), time.process_time()
            run(network)
            runs[name].append((time.perf_counter() - clock, time.process_time() - cpu))
        done += 1
    return runs


def fastest(run: Callable, networks: dict, repeats: int) -> dict[str, float]:
    """Seconds of the fastest of several alternating runs of each network."""
    runs = alternate(run, networks, repeats, LEAST[0] * (repeats > 1))
    return {name: min(clock for clock, _ in all_runs) for name, all_runs in runs.items()}


def same_weights(ours: nn.Module, theirs: nn.Module, peer: str) -> None:
    """Give ours a peer's weights; a plain version of ours has them from the beginning."""
    if peer in translators(ours):
        import_weights(ours, theirs.state_dict(), peer)


def difference(ours: nn.Module, theirs: nn.Module, peer: str) -> float:
    """The largest relative difference of the outputs with equal weights."""
    same_weights(ours, theirs, peer)
    with torch.no_grad():
        got, want = ours.eval()(noise()), theirs.eval()(noise())
    return float((got.reshape(want.shape) - want).abs().max() / want.abs().max())


def _compare(build: Callable, size: dict, names: list[str], least: float) -> dict[str, dict]:
    """All runs of forward pass and training step, of each network that is there."""
    how, networks = use(size), {}
    for name in names:
        torch.manual_seed(0)
        if (network := build(name, how)) is not None:
            networks[name] = network
    mix = noise()
    for name in [name for name in networks if name in translators(networks["ours"])]:
        with suppress(ValueError):  # a peer of another size
            same_weights(networks["ours"], networks[name], name)
            break
    adams = {net: torch.optim.Adam(net.parameters(), lr=1e-4) for net in networks.values()}
    train = lambda net: step(net, mix, adams[net])
    runs = {
        "forward": alternate(lambda net: forward(net, mix), networks, 1, least),
        "train": alternate(train, networks, 1, least),
    }
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}
    return {"parameters": count} | runs


def _row(name: str, found: list[dict]) -> dict[str, float]:
    """What `compare` tells of a network: times, and ours over its own."""
    row = {"network": name, "parameters": found[0]["parameters"][name]}
    for task in ("forward", "train"):
        runs = [run for one in found for run in one[task][name]]
        for k, what in enumerate(("seconds", "cpu_seconds")):
            row[f"{task}_{what}"] = round(min(run[k] for run in runs), 4)
        ours = [clock for one in found for clock, _ in one[task]["ours"]]
        if name != "ours":
            pairs = sorted(a / b for a, (b, _) in zip(ours, runs, strict=True))
            middle = [pairs[len(pairs) * k // 4] for k in (1, 3)]
            row |= {f"{task}_ratio": round(statistics.median(pairs), 2)}
            row |= {f"{task}_pairs": len(pairs), f"{task}_quartiles": [round(r, 3) for r in middle]}
    return row


def compare(build: Callable, size: dict, names: tuple[str, ...], repeats: int, **first) -> list:
    """A row for each network that is there: forward pass and training step, time and memory.

    Each repeat is a process of its own; a single one is done in this process, once over.
    """
    if repeats == 1:
        found = [_compare(build, size, list(names), 0.0)]
    else:
        turns = [names[k % len(names) :] + names[: k % len(names)] for k in range(repeats)]
        found = [_call(",".join(turn), size, "compare", LEAST[0]) for turn in turns]
    rows = []
    for name in (name for name in names if name in found[0]["parameters"]):
        row = first | _row(name, found)
        for task in ("forward", "train"):
            row[f"{task}_peak_gb"] = alone(name, size, task)["peak_gb"]
        rows.append(row)
        print(row, flush=True)
    return rows


def figure(what: str, value: float, unit: str = "", bar: str = "") -> dict:
    """A line of the results table."""
    return {"what": what, "value": value, "unit": unit, "bar": bar}


def ratios(system: str, rows: list[dict]) -> list[dict]:
    """Our time over the fastest peer's, for forward pass and training step."""
    found = []
    for task, what in (("forward", "forward pass"), ("train", "training step")) if rows[1:] else ():
        best = min(rows[1:], key=lambda row: row[f"{task}_seconds"])
        what = f"{system}, {what}: our time over {best['network']}'s"
        found.append(figure(what, best[f"{task}_ratio"], "x", "at most 1"))
    return found


def one_core(description: str) -> bool:
    """Get ready for a training on one core; True for `--quick`, a few steps and no report."""
    import torch

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    return args.quick


def save(title: str, headline: list[dict], command: str, device: str, **more) -> None:
    """Write results/NAME.json, as the home page reads it; NAME is the script's."""
    told = {"title": title, "headline": headline, "command": command}
    told |= {"date": date.today().isoformat(), "device": device}
    path = ROOT / "results" / f"{Path(sys.argv[0]).stem}.json"
    path.write_text(json.dumps(told | more, indent=1) + "\n", encoding="utf-8")


def report(args: argparse.Namespace, title: str, headline: list[dict], **more) -> None:
    """Write what a benchmark of networks found, unless the run was a quick one."""
    command = " ".join([f"python benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    told = {
        "data": f"random numbers, batch 1, {tuple(noise().shape[1:])} samples; weights equal, "
        "outputs compared",
        "repeats": args.repeats,
        "statistic": f"{args.repeats} processes, in each one run and {args.least:g} s at least; "
        "times are the minimum of all runs, ratios the median over pairs of neighbours",
    }
    if not args.quick:
        save(title, headline, command, f"{THREADS} CPU cores", **told | more)
