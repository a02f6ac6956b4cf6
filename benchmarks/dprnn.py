"""The dual-path RNN against asteroid: equal weights, equal outputs, time and memory.

    python benchmarks/dprnn.py            writes results/dprnn.json
    python benchmarks/dprnn.py --quick    a small network, one repeat, writes nothing

The published network with frames of 16 samples (chunks of 100, 128 channels) and the paper's with
frames of 2 (chunks of 250, 64 channels), 4 s at 8 kHz, batch 1, two threads. Ours gets asteroid's
random weights, and its outputs are compared. A training step is forward, mean absolute value,
backward and Adam. Runs alternate, and the fastest of each counts. Peak memory is that of a process
of its own per network. Then one long LSTM against a dual-path block of as many weights, and up to
ten minutes of sound, whole and through `separate`. Asteroid comes from .peers (`make parity`).
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
from einops import rearrange  # noqa: E402

from sepbook.models.dprnn import DPRNN, DualPath, merge, segment  # noqa: E402
from sepbook.separate import separate  # noqa: E402
from sepbook.zoo import import_weights  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "dprnn.json"
SIZES = {
    "window 16": {"kernel": 16, "chunk": 100, "bottleneck": 128, "hidden": 128, "blocks": 6},
    "window 2": {"kernel": 2, "chunk": 250, "bottleneck": 64, "hidden": 128, "blocks": 6},
}
QUICK = {"quick": {"kernel": 16, "chunk": 100, "bottleneck": 16, "hidden": 16, "blocks": 1}}


def build(which: str, size: dict) -> torch.nn.Module | None:
    """One of the networks, with random weights of its own; None if its toolkit is missing."""
    torch.manual_seed(0)
    if which == "ours":
        return DPRNN(**size, edge="whole", pad=False)
    sys.path.append(str(ROOT / ".peers"))
    try:
        from asteroid.models import DPRNNTasNet as Theirs
    except ImportError:
        return None
    frame = {"kernel_size": size["kernel"], "stride": size["kernel"] // 2}
    inner = {"bn_chan": size["bottleneck"], "hid_size": size["hidden"]}
    return Theirs(2, chunk_size=size["chunk"], n_repeats=size["blocks"], **frame, **inner)


def error(theirs: torch.nn.Module, ours: torch.nn.Module, mix: torch.Tensor) -> float:
    """The largest relative difference of the outputs with asteroid's weights in ours."""
    import_weights(ours.eval(), theirs.state_dict(), "asteroid")
    with torch.no_grad():
        want = theirs.eval()(mix)
        return float((ours(mix)[:, :, 0] - want).abs().max() / want.abs().max())


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


def report_peak() -> None:
    """Print this process' peak memory in GB."""
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's memory
    print("peak", int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9)


def memory(which: str, size: str, task: str) -> None:
    """Run a task twice, and print the peak memory."""
    torch.set_num_threads(THREADS)
    network, mix = build(which, json.loads(size)), torch.randn(1, 1, 32000)
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)
    for _ in range(2):
        step(network, mix, adam) if task == "train" else forward(network, mix)
    report_peak()


def long(size: str, minutes: str, how: str) -> None:
    """Separate a long recording, and print seconds and peak memory."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    network = DPRNN(**json.loads(size)).eval()
    mix = torch.randn(1, round(480_000 * float(minutes)))
    started = time.perf_counter()
    if how == "separate":
        separate(network, mix, progress=False)
    else:
        forward(network, mix[None])
    print("seconds", round(time.perf_counter() - started, 2))
    report_peak()


def child(flag: str, *words: str) -> dict[str, float]:
    """What a process of its own prints: names and numbers."""
    command = [sys.executable, __file__, flag, *words]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in out.splitlines() if line.startswith(("peak", "seconds")))
    return {name: round(float(value), 2) for name, value in rows}


def seconds(run, networks: dict, repeats: int) -> dict[str, float]:
    """The fastest of several alternating runs of each network."""
    best = dict.fromkeys(networks, float("inf"))
    for network in networks.values():
        run(network)
    for _ in range(repeats):
        for name, network in networks.items():
            started = time.perf_counter()
            run(network)
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def compare(title: str, size: dict, repeats: int) -> tuple[list[dict], float | None]:
    """Time and memory of both networks, and how far apart the outputs are."""
    mix = torch.randn(1, 1, 32000, generator=torch.Generator().manual_seed(1))
    networks = {n: net for n in ("ours", "asteroid") if (net := build(n, size)) is not None}
    apart = error(networks["asteroid"], networks["ours"], mix) if len(networks) > 1 else None
    adams = {net: torch.optim.Adam(net.parameters(), lr=1e-4) for net in networks.values()}
    times = {
        "forward": seconds(lambda net: forward(net, mix), networks, repeats),
        "train": seconds(lambda net: step(net, mix, adams[net]), networks, max(1, repeats // 2)),
    }
    rows = []
    for name, network in networks.items():
        row = {"size": title, "network": name}
        row["parameters"] = sum(p.numel() for p in network.parameters())
        for task in ("forward", "train"):
            row[f"{task}_seconds"] = round(times[task][name], 4)
            row[f"{task}_peak_gb"] = child("--memory", name, json.dumps(size), task)["peak"]
        rows.append(row)
        print(*row.values(), sep="\t", flush=True)
    return rows, apart


def square(lengths: tuple[int, ...], repeats: int) -> list[dict]:
    """Two long LSTM layers against a dual-path block with LSTMs of the same size, by length."""
    torch.manual_seed(0)
    flat = torch.nn.LSTM(128, 64, num_layers=2, bidirectional=True, batch_first=True).eval()
    block = DualPath(128, 64, "gLN").eval()

    def dual(x: torch.Tensor) -> torch.Tensor:
        size = 2 * round((2 * x.shape[1]) ** 0.5 / 2)
        chunks = rearrange(segment(x, size), "b s k c -> k b s c").contiguous()
        return merge(rearrange(block(chunks), "k b s c -> b s k c"), x.shape[1])

    rows = []
    with torch.no_grad():
        for frames in lengths:
            x = torch.randn(1, frames, 128)
            runs = {"long": lambda: flat(x), "dual": lambda: dual(x)}  # noqa: B023
            taken = seconds(lambda run: run(), runs, repeats)
            rows.append(
                {"frames": frames} | {f"{k}_seconds": round(v, 4) for k, v in taken.items()}
            )
    return rows


def headline(rows: list[dict], errors: dict, lengths: list[dict], whole: list[dict]) -> list[dict]:
    """The figures that have a bar."""
    found = []
    for ours, theirs in zip(rows[::2], rows[1::2]):
        for task, what in (("forward", "forward pass"), ("train", "training step")):
            ratio = ours[f"{task}_seconds"] / theirs[f"{task}_seconds"]
            what = f"DPRNN, {ours['size']}, {what}: our time over asteroid's"
            found.append({"what": what, "value": round(ratio, 3), "unit": "x", "bar": "at most 1"})
    ratio = whole[-1]["seconds"] / whole[0]["seconds"] * whole[0]["minutes"] / whole[-1]["minutes"]
    cut = next(row for row in lengths if row["how"] == "separate")
    last = lengths[-1]["minutes"]
    found += [
        {
            "what": "DPRNN, largest relative difference from asteroid's output",
            "value": max(errors.values()),
            "unit": "",
            "bar": "at most 1e-5",
        },
        {
            "what": f"DPRNN, seconds for a minute within {last:g} minutes over those for one",
            "value": round(ratio, 3),
            "unit": "x",
            "bar": "about 1",
        },
        {
            "what": f"DPRNN, {cut['minutes']:g} minutes through separate: peak memory",
            "value": cut["peak"],
            "unit": "GB",
            "bar": "at most 4",
        },
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--long", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.memory:
        return memory(*args.memory)
    if args.long:
        return long(*args.long)
    torch.set_num_threads(THREADS)
    sizes, repeats = (QUICK, 1) if args.quick else (SIZES, args.repeats)
    print("size\tnetwork\tparameters\tforward s\tGB\ttraining step s\tGB")
    rows, errors = [], {}
    for title, size in sizes.items():
        found, apart = compare(title, size, repeats)
        rows += found
        errors |= {} if apart is None else {title: apart}
    folded = square((1000, 2000) if args.quick else (1000, 4000, 16000, 64000), min(repeats, 3))
    print(*folded, sep="\n")
    first, minutes = next(iter(sizes.values())), ("0.05", "0.2") if args.quick else ("1", "10")
    lengths = []
    for how, length in (("whole", minutes[0]), ("whole", minutes[1]), ("separate", minutes[1])):
        told = child("--long", json.dumps(first), length, how)
        lengths.append({"how": how, "minutes": float(length)} | told)
        print(lengths[-1], flush=True)
    whole = [row for row in lengths if row["how"] == "whole"]
    if args.quick or not errors:
        return
    report = {
        "title": "Dual-path RNN, 4 s at 8 kHz: ours and asteroid",
        "headline": headline(rows, errors, lengths, whole),
        "command": " ".join(["python benchmarks/dprnn.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "device": f"{THREADS} CPU cores",
        "data": "random numbers, batch 1, 32,000 samples; weights equal, outputs compared",
        "repeats": repeats,
        "statistic": "minimum over repeats, networks alternating",
        "relative_error": errors,
        "rows": rows,
        "one_long_lstm_or_dual_path": folded,
        "long": lengths,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
