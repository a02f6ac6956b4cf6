"""TasNet against asteroid's LSTMTasNet: equal weights, equal outputs, time and memory.

    python benchmarks/tasnet.py            writes results/tasnet.json
    python benchmarks/tasnet.py --quick    small networks, one repeat, writes nothing

The paper's LSTM and BLSTM, and asteroid's default (windows of 2 ms), 4 s at 8 kHz, batch 1, two
threads. Ours gets asteroid's random weights, and its outputs are compared. A training step is
forward, mean absolute value, backward and Adam. Runs alternate, and the fastest of each counts.
Peak memory is that of a process of its own per network. Also: what the window length costs, long
recordings, and a causal network that runs live. Asteroid comes from .peers (`make parity`).
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from datetime import date
from pathlib import Path

THREADS = 2
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, str(THREADS))

import torch  # noqa: E402

from sepbook.models.tasnet import TasNet, frames  # noqa: E402
from sepbook.zoo import import_weights  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "tasnet.json"
WIDE = {"n_filters": 500, "kernel": 40, "stride": 40, "layers": 4}
PAPER = {
    "LSTM": WIDE | {"hidden": 1000, "causal": True},
    "BLSTM": WIDE | {"hidden": 500, "causal": False},
    "BLSTM, 2 ms": {"n_filters": 64, "kernel": 16, "stride": 8, "layers": 4}
    | {"hidden": 512, "causal": False},
}
TINY = {"n_filters": 32, "kernel": 40, "stride": 40, "layers": 2, "hidden": 32}
QUICK = {"LSTM": TINY | {"causal": True}, "BLSTM": TINY | {"causal": False}}
SMALL = {"n_filters": 64, "hidden": 64, "layers": 2}


def build(which: str, size: dict) -> torch.nn.Module | None:
    """One of the networks, with random weights of its own; None if its toolkit is missing."""
    torch.manual_seed(0)
    if which == "ours":
        norm = "cLN" if size["causal"] else "gLN"
        return TasNet(**size, norm=norm, unit=False, skip=False, pad=False, dropout=0.3)
    sys.path.append(str(ROOT / ".peers"))
    try:
        from asteroid.models import LSTMTasNet
    except ImportError:
        return None
    names = {"kernel": "kernel_size", "hidden": "hid_size", "layers": "n_layers"}
    how = {names.get(k, k): v for k, v in size.items() if k != "causal"}
    return LSTMTasNet(2, bidirectional=not size["causal"], **how)


def forward(network: torch.nn.Module, mix: torch.Tensor) -> None:
    """Separate, without gradients."""
    network.eval()
    with torch.no_grad():
        network(mix)


def step(network: torch.nn.Module, mix: torch.Tensor, adam: torch.optim.Optimizer) -> None:
    """One step of training."""
    network.train()
    adam.zero_grad()
    network(mix).abs().mean().backward()
    adam.step()


def memory(which: str, size: str, task: str) -> None:
    """Print this process' peak memory in GB after `task`."""
    torch.set_num_threads(THREADS)
    network = build(which, json.loads(size))
    mix = torch.randn(1, 1, 32000)
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)
    for _ in range(3):
        step(network, mix, adam) if task == "train" else forward(network, mix)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's memory
    print("peak", int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9)


def peak(which: str, size: dict, task: str) -> float:
    """Peak memory in GB, measured in a process of its own."""
    command = [sys.executable, __file__, "--memory", which, json.dumps(size), task]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(out.split("peak")[1])


def seconds(run, networks: dict, repeats: int) -> dict[str, dict[str, float]]:
    """The fastest of several alternating runs of each network, by the clock and in CPU time."""
    best = {name: {"seconds": 1e9, "cpu_seconds": 1e9} for name in networks}
    for network in networks.values():
        run(network)
    for _ in range(repeats):
        for name, network in networks.items():
            clock, cpu = time.perf_counter(), time.process_time()
            run(network)
            taken = {
                "seconds": time.perf_counter() - clock,
                "cpu_seconds": time.process_time() - cpu,
            }
            best[name] = {k: min(v, best[name][k]) for k, v in taken.items()}
    return best


def compare(title: str, size: dict, repeats: int) -> tuple[list[dict], float | None]:
    """Time and memory of both, and how far apart their outputs are."""
    mix = torch.randn(1, 1, 32000, generator=torch.Generator().manual_seed(1))
    networks = {n: net for n in ("ours", "asteroid") if (net := build(n, size)) is not None}
    apart = None
    if "asteroid" in networks:
        import_weights(networks["ours"], networks["asteroid"].state_dict(), "asteroid")
        with torch.no_grad():
            got, want = networks["ours"].eval()(mix)[:, :, 0], networks["asteroid"].eval()(mix)
        apart = float((got - want).abs().max() / want.abs().max())
    adams = {net: torch.optim.Adam(net.parameters(), lr=1e-4) for net in networks.values()}
    times = {
        "forward": seconds(lambda net: forward(net, mix), networks, repeats),
        "train": seconds(lambda net: step(net, mix, adams[net]), networks, repeats),
    }
    rows = []
    for name, network in networks.items():
        params = sum(p.numel() for p in network.parameters())
        row = {"size": title, "network": name, "parameters": params}
        for task in ("forward", "train"):
            row |= {f"{task}_{k}": round(v, 4) for k, v in times[task][name].items()}
            row[f"{task}_peak_gb"] = round(peak(name, size, task), 2)
        rows.append(row)
        print(*row.values(), sep="\t", flush=True)
    return rows, apart


def windows(kernels: tuple[int, ...], repeats: int) -> list[dict]:
    """What the length of the window costs: the small network on 4 s."""
    mix, rows = torch.randn(1, 1, 32000), []
    for kernel in kernels:
        network = {"net": TasNet(**SMALL, kernel=kernel, stride=kernel)}
        taken = seconds(lambda net: forward(net, mix), network, repeats)["net"]
        rate = {"steps_per_second": 8000 // kernel, "latency_ms": kernel / 8}
        rows.append(
            {"kernel": kernel} | rate | {"real_time_factor": round(taken["seconds"] / 4, 4)}
        )
    return rows


def minutes(lengths: tuple[float, ...]) -> list[dict]:
    """Seconds for long recordings, by the small network, without cutting them."""
    network, rows = TasNet(**SMALL), []
    for length in lengths:
        started = time.perf_counter()
        forward(network, torch.randn(1, 1, round(480_000 * length)))
        rows.append({"minutes": length, "seconds": round(time.perf_counter() - started, 2)})
    return rows


def live(size: dict, length: float) -> dict:
    """The causal network frame by frame, one thread: is it faster than the sound, and the same?"""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = TasNet(**size, norm="frame").eval()
    cut = frames(torch.randn(1, round(8000 * length)), network.kernel, network.stride)
    past, parts, slowest, started = {}, [], 0.0, time.perf_counter()
    with torch.no_grad():
        for block in cut.split(1, 1):
            begun = time.perf_counter()
            parts.append(network.separate_frames(block, past))
            slowest = max(slowest, time.perf_counter() - begun)
        taken = time.perf_counter() - started
        want = network.separate_frames(cut)
    torch.set_num_threads(THREADS)
    return {
        "parameters": network.n_params,
        "latency_ms": network.kernel / 8,
        "real_time_factor": round(taken / length, 3),
        "slowest_frame_ms": round(1000 * slowest, 2),
        "relative_error": float((torch.cat(parts, 1) - want).abs().max() / want.abs().max()),
    }


def headline(rows: list[dict], apart: dict, stream: dict) -> list[dict]:
    """The figures that have a bar."""
    found = []
    for title in dict.fromkeys(r["size"] for r in rows):
        pair = {r["network"]: r for r in rows if r["size"] == title}
        for task, what in (("forward", "forward pass"), ("train", "training step")):
            if "asteroid" in pair:
                times = [pair[name][f"{task}_seconds"] for name in ("ours", "asteroid")]
                what = f"TasNet, {title}, {what}: our time over asteroid's"
                value = round(times[0] / times[1], 3)
                found.append({"what": what, "value": value, "unit": "x", "bar": "at most 1"})
    if apart:
        what = "TasNet, largest relative difference from asteroid's output"
        found.append(
            {"what": what, "value": max(apart.values()), "unit": "", "bar": "at most 1e-5"}
        )
    what = "TasNet-LSTM live, frames of 5 ms: seconds per second of sound"
    value = stream["real_time_factor"]
    return [*found, {"what": what, "value": value, "unit": "", "bar": "below 1"}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.memory:
        return memory(*args.memory)
    torch.set_num_threads(THREADS)
    sizes, repeats = (QUICK, 1) if args.quick else (PAPER, args.repeats)
    print("size\tnetwork\tparameters\tforward s\tCPU s\tGB\ttraining step s\tCPU s\tGB")
    rows, apart = [], {}
    for title, size in sizes.items():
        found, error = compare(title, size, repeats)
        rows += found
        apart |= {title: error} if error is not None else {}
    costs = windows((80, 40) if args.quick else (160, 80, 40, 20, 10, 5), repeats)
    long = minutes((0.05, 0.1) if args.quick else (1.0, 10.0))
    stream = live(sizes["LSTM"], 0.5 if args.quick else 10.0)
    print(*costs, *long, stream, sep="\n")
    if args.quick:
        return
    report = {
        "title": "TasNet at the paper's sizes, 4 s at 8 kHz: ours and asteroid's",
        "headline": headline(rows, apart, stream),
        "command": " ".join(["python benchmarks/tasnet.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "device": f"{THREADS} CPU cores",
        "data": "random numbers, batch 1, 32,000 samples; weights equal, outputs compared",
        "repeats": repeats,
        "statistic": "minimum over repeats, networks alternating",
        "relative_error": apart,
        "rows": rows,
        "windows": costs,
        "long": long,
        "stream": stream,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
