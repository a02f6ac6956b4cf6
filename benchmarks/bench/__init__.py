"""What the benchmarks of networks share: equal weights, runs side by side, processes, reports.

A benchmark gives `build(which, size)`: the network "ours" or a peer's, None where that is missing.
Runs alternate, and the fastest of each network counts. Peak memory, and whatever is long, is
measured in a process of its own: the benchmark calls itself with `--child`. What is measured on is
4 s of mono at 8 kHz, unless the benchmark gives another `Audio` to `start`.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

THREADS, LEAST = 2, 15.0
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, str(THREADS))

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

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
    doc: str, build: Callable, repeats: int, audio: Audio = Audio(), **more
) -> argparse.Namespace:
    """Read the command line; a child does its task here and ends."""
    AUDIO[0] = audio
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=repeats)
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
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


def _child(build: Callable, which: str, size: str, task: str, seconds: str) -> None:
    """Do a task, and print what it took."""
    torch.manual_seed(0)
    network = build(which, use(json.loads(size)))
    mix = noise(float(seconds))
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)
    runs = {
        "forward": lambda: forward(network, mix),
        "train": lambda: step(network, mix, adam),
        "separate": lambda: separate(network.eval(), mix[0], AUDIO[0].rate, progress=False),
    }
    for _ in range(2 if task == "train" else 1):  # the optimiser's memory comes with the first
        started = time.perf_counter()
        runs[task]()
        spent = time.perf_counter() - started
    print(json.dumps({"seconds": round(spent, 3), "peak_gb": peak_gb()}))


def alone(which: str, size: dict, task: str, seconds: float | None = None) -> dict[str, float]:
    """Seconds and peak memory (GB) of "forward", "train" or "separate", in its own process."""
    seconds = AUDIO[0].seconds if seconds is None else seconds
    command = [sys.executable, sys.argv[0], "--child", which, json.dumps(size), task, str(seconds)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


def keep_memory() -> None:
    """What is freed stays with the process (Linux): no run depends on how soon it gets pages."""
    with suppress(AttributeError):
        settings = {-1: 2**31 - 1, -4: 0}  # M_TRIM_THRESHOLD, M_MMAP_MAX
        for name, value in settings.items():
            ctypes.CDLL(None).mallopt(name, value)


def fastest(run: Callable, networks: dict, repeats: int) -> dict[str, dict[str, float]]:
    """The fastest of several alternating runs of each network, by the clock and in CPU time.

    Runs that are soon over are repeated for LEAST seconds, unless there is but one repeat.
    """
    keep_memory()
    best = {name: {"seconds": 1e9, "cpu_seconds": 1e9} for name in networks}
    for network in networks.values():
        run(network)
    started, done = time.perf_counter(), 0
    while done < repeats or (repeats > 1 and time.perf_counter() - started < LEAST):
        for name, network in networks.items():
            clock, cpu = time.perf_counter(), time.process_time()
            run(network)
            taken = time.perf_counter() - clock, time.process_time() - cpu
            best[name] = {k: min(v, best[name][k]) for k, v in zip(best[name], taken)}
        done += 1
    return best


def same_weights(ours: nn.Module, theirs: nn.Module, peer: str) -> None:
    """Give ours a peer's weights; a plain version of ours has them from the beginning."""
    if peer in ours.peers:
        import_weights(ours, theirs.state_dict(), peer)


def difference(ours: nn.Module, theirs: nn.Module, peer: str) -> float:
    """The largest relative difference of the outputs with equal weights."""
    same_weights(ours, theirs, peer)
    with torch.no_grad():
        got, want = ours.eval()(noise()), theirs.eval()(noise())
    return float((got.reshape(want.shape) - want).abs().max() / want.abs().max())


def compare(build: Callable, size: dict, names: tuple[str, ...], repeats: int, **first) -> list:
    """A row for each network that is there: forward pass and training step, time and memory."""
    how, networks = use(size), {}
    for name in names:
        torch.manual_seed(0)
        if (network := build(name, how)) is not None:
            networks[name] = network
    mix = noise()
    for name, theirs in list(networks.items())[1:2]:
        same_weights(networks["ours"], theirs, name)
    adams = {net: torch.optim.Adam(net.parameters(), lr=1e-4) for net in networks.values()}
    train = lambda net: step(net, mix, adams[net])
    times = {
        "forward": fastest(lambda net: forward(net, mix), networks, repeats),
        "train": fastest(train, networks, max(1, repeats // 2)),
    }
    rows = []
    for name, network in networks.items():
        row = first | {"network": name, "parameters": sum(p.numel() for p in network.parameters())}
        for task in times:
            row |= {f"{task}_{key}": round(value, 4) for key, value in times[task][name].items()}
            row[f"{task}_peak_gb"] = alone(name, size, task)["peak_gb"]
        rows.append(row)
        print(row, flush=True)
    return rows


def figure(what: str, value: float, unit: str = "", bar: str = "") -> dict:
    """A line of the results table."""
    return {"what": what, "value": value, "unit": unit, "bar": bar}


def ratios(system: str, rows: list[dict]) -> list[dict]:
    """Our time over the fastest peer's, for forward pass and training step."""
    ours, *peers = rows
    found = []
    for task, what in (("forward", "forward pass"), ("train", "training step")) if peers else ():
        best = min(peers, key=lambda row: row[f"{task}_seconds"])
        ratio = ours[f"{task}_seconds"] / best[f"{task}_seconds"]
        what = f"{system}, {what}: our time over {best['network']}'s"
        found.append(figure(what, round(ratio, 3), "x", "at most 1"))
    return found


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
        "statistic": "minimum over repeats (half as many for training, but more of short runs: for "
        f"{LEAST:g} s), networks alternating",
    }
    if not args.quick:
        save(title, headline, command, f"{THREADS} CPU cores", **told | more)
