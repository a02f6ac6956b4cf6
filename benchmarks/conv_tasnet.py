"""Conv-TasNet against torchaudio and asteroid: equal weights, equal outputs, time and memory.

    python benchmarks/conv_tasnet.py            writes results/conv_tasnet.json
    python benchmarks/conv_tasnet.py --quick    a small network, one repeat, writes nothing

The paper's size, 4 s at 8 kHz, batch 1, two threads. Ours gets each peer's random weights, and its
outputs are compared. A training step is forward, mean absolute value, backward and Adam. Runs
alternate, and the fastest of each counts. Peak memory is that of a process of its own per network.
Asteroid comes from .peers (`make parity`); without it, torchaudio alone is compared.
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

from sepbook.models.conv_tasnet import ConvTasNet, Stream  # noqa: E402
from sepbook.separate import separate  # noqa: E402
from sepbook.zoo import import_weights  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "conv_tasnet.json"
PAPER = {"n_filters": 512, "bottleneck": 128, "hidden": 512, "skip": 128, "repeats": 3}
QUICK = {"n_filters": 64, "bottleneck": 32, "hidden": 64, "skip": 32, "repeats": 1}
LIVE = {"n_filters": 256, "kernel": 32, "bottleneck": 96, "hidden": 192, "skip": 96, "blocks": 7}


def build(which: str, size: dict) -> torch.nn.Module | None:
    """One of the networks, with random weights of its own; None if its toolkit is missing."""
    torch.manual_seed(0)
    if which == "torchaudio":
        from torchaudio.models import ConvTasNet as Theirs

        narrow = size["n_filters"], 3, size["bottleneck"], size["hidden"]
        return Theirs(2, 16, *narrow, 8, size["repeats"], "relu")
    if which == "asteroid":
        sys.path.append(str(ROOT / ".peers"))
        try:
            from asteroid.models import ConvTasNet as Theirs
        except ImportError:
            return None
        widths = {"bn_chan": size["bottleneck"], "hid_chan": size["hidden"]}
        widths |= {"skip_chan": size["skip"], "n_repeats": size["repeats"]}
        return Theirs(2, n_filters=size["n_filters"], mask_act="relu", **widths)
    extra = {"last_residual": True, "pad": False} if which == "ours as asteroid" else {}
    return ConvTasNet(**size, mask="relu", **{"last_residual": False} | extra)


def error(theirs: torch.nn.Module, peer: str, size: dict, mix: torch.Tensor) -> float:
    """The largest relative difference of the outputs with a peer's weights in ours."""
    ours = build("ours as asteroid" if peer == "asteroid" else "ours", size).eval()
    import_weights(ours, theirs.state_dict(), peer)
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


def print_peak() -> None:
    """Print the most memory that this process has held, in GB. (ru_maxrss adds the parent's.)"""
    status = Path("/proc/self/status").read_text()
    print("peak", int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9)


def memory(which: str, size: str, task: str) -> None:
    """Print this process' peak memory in GB after `task`."""
    torch.set_num_threads(THREADS)
    network = build(which, json.loads(size))
    mix = torch.randn(1, 1, 32000)
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)
    for _ in range(3):
        step(network, mix, adam) if task == "train" else forward(network, mix)
    print_peak()


def peak(which: str, size: dict, task: str) -> float:
    """Peak memory in GB, measured in a process of its own."""
    command = [sys.executable, __file__, "--memory", which, json.dumps(size), task]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(out.split("peak")[1])


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


def live(size: dict, milliseconds: float, length: float) -> dict:
    """A causal network on a stream, one thread: real-time factor, and equality with offline."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = ConvTasNet(**size, norm="cLN", mask="relu", causal=True).eval()
    mix = torch.randn(1, 1, round(8000 * length))
    stream, parts, slowest = Stream(network), [], 0.0
    started = time.perf_counter()
    for block in mix.split(round(8 * milliseconds), -1):
        begun = time.perf_counter()
        parts.append(stream(block))
        slowest = max(slowest, time.perf_counter() - begun)
    parts.append(stream.flush())
    taken = time.perf_counter() - started
    with torch.no_grad():
        want = network(mix)
    torch.set_num_threads(THREADS)
    return {
        "parameters": network.n_params,
        "block_ms": milliseconds,
        "latency_ms": stream.latency / 8 + milliseconds,
        "algorithmic_latency_ms": stream.latency / 8,
        "real_time_factor": round(taken / length, 3),
        "slowest_block_ms": round(1000 * slowest, 2),
        "relative_error": float((torch.cat(parts, -1) - want).abs().max() / want.abs().max()),
    }


def long_recording(length: float, size: str) -> None:
    """Print seconds and peak memory (GB) of `separate` on a recording of `length` minutes."""
    torch.set_num_threads(THREADS)
    network = build("ours", json.loads(size)).eval()
    mix = torch.randn(1, round(480_000 * length))
    separate(network, mix[:, :160_000], progress=False)
    started = time.perf_counter()
    separate(network, mix, progress=False)
    print("seconds", time.perf_counter() - started)
    print_peak()


def minutes(lengths: tuple[float, ...], size: dict) -> list[dict]:
    """Cost of long recordings through `separate`, a process for each."""
    rows = []
    for length in lengths:
        command = [sys.executable, __file__, "--long", str(length), json.dumps(size)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        seconds, gigabytes = (float(out.split(word)[1].split()[0]) for word in ("seconds", "peak"))
        row = {"minutes": length, "seconds": round(seconds, 2), "peak_gb": round(gigabytes, 2)}
        rows.append(row | {"seconds_per_minute": round(seconds / length, 2)})
    return rows


def compare(size: dict, repeats: int) -> tuple[list[dict], dict[str, float]]:
    """Time and memory of all networks, and how far apart the outputs are."""
    mix = torch.randn(1, 1, 32000, generator=torch.Generator().manual_seed(1))
    names = ("ours", "torchaudio", "asteroid")
    networks = {n: net for n in names if (net := build(n, size)) is not None}
    errors = {n: error(net, n, size, mix) for n, net in networks.items() if n != "ours"}
    import_weights(networks["ours"], networks["torchaudio"].state_dict(), "torchaudio")
    adams = {net: torch.optim.Adam(net.parameters(), lr=1e-4) for net in networks.values()}
    times = {
        "forward": seconds(lambda net: forward(net, mix), networks, repeats),
        "train": seconds(lambda net: step(net, mix, adams[net]), networks, repeats),
    }
    rows = []
    for name, network in networks.items():
        row = {"network": name, "parameters": sum(p.numel() for p in network.parameters())}
        for task in ("forward", "train"):
            row[f"{task}_seconds"] = round(times[task][name], 4)
            row[f"{task}_peak_gb"] = round(peak(name, size, task), 2)
        rows.append(row)
        print(*row.values(), sep="\t", flush=True)
    return rows, errors


def headline(rows: list[dict], errors: dict, streams: list[dict], long: list[dict]) -> list[dict]:
    """The figures that have a bar."""
    ours, peers, found = rows[0], rows[1:], []
    for task, what in (("forward", "forward pass"), ("train", "training step")):
        ratio = ours[f"{task}_seconds"] / min(r[f"{task}_seconds"] for r in peers)
        what = f"Conv-TasNet, {what}: our time over the fastest peer's"
        found.append({"what": what, "value": round(ratio, 3), "unit": "x", "bar": "at most 1"})
    found += [
        {
            "what": "Conv-TasNet, peak memory of training",
            "value": ours["train_peak_gb"],
            "unit": "GB",
            "bar": "at most 3.0",
        },
        {
            "what": "Conv-TasNet, largest relative difference from a peer's output",
            "value": max(errors.values()),
            "unit": "",
            "bar": "at most 1e-5",
        },
        {
            "what": "Conv-TasNet (0.9 M) live, blocks of 16 ms, one core: seconds for one of sound",
            "value": streams[0]["real_time_factor"],
            "unit": "",
            "bar": "below 1",
        },
    ]
    found += [
        {
            "what": "Conv-TasNet, 10 minutes through `separate`: time per minute over that of one",
            "value": round(long[-1]["seconds_per_minute"] / long[0]["seconds_per_minute"], 2),
            "unit": "x",
            "bar": "about 1",
        },
        {
            "what": "Conv-TasNet, 10 minutes through `separate`: peak memory",
            "value": long[-1]["peak_gb"],
            "unit": "GB",
            "bar": "at most 4",
        },
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--long", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.memory:
        return memory(*args.memory)
    if args.long:
        return long_recording(float(args.long[0]), args.long[1])
    torch.set_num_threads(THREADS)
    size, repeats = (QUICK, 1) if args.quick else (PAPER, args.repeats)
    print("network\tparameters\tforward s\tGB\ttraining step s\tGB")
    rows, errors = compare(size, repeats)
    small, length = LIVE | {"repeats": 2}, 1.0 if args.quick else 20.0
    streams = [live(small, 16.0, length), live(small, 8.0, length)]
    if not args.quick:
        streams += [live(PAPER, 64.0, 10.0), live(PAPER, 32.0, 10.0)]
    print(*streams, sep="\n")
    long = minutes((0.05, 0.1) if args.quick else (1.0, 3.0, 10.0), size)
    print(*long, sep="\n")
    if args.quick:
        return
    report = {
        "title": "Conv-TasNet at the paper's size, 4 s at 8 kHz: ours, torchaudio, asteroid",
        "headline": headline(rows, errors, streams, long),
        "command": " ".join(["python benchmarks/conv_tasnet.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "device": f"{THREADS} CPU cores",
        "data": "random numbers, batch 1, 32,000 samples; weights equal, outputs compared",
        "repeats": repeats,
        "statistic": "minimum over repeats, networks alternating",
        "relative_error": errors,
        "rows": rows,
        "streams": streams,
        "long": long,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
