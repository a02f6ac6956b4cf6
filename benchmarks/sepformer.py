"""SepFormer against speechbrain: equal weights, equal outputs, time, memory, and long recordings.

    python benchmarks/sepformer.py            writes results/sepformer.json
    python benchmarks/sepformer.py --quick    a small network, one repeat, writes nothing

The paper's size, 4 s at 8 kHz, batch 1, two threads, no dropout, as the recipe has it. Ours gets
the peer's random weights, and the outputs are compared. A training step is forward, mean absolute
value, backward and Adam. Runs alternate, and the fastest of each counts. Peak memory is that of a
process of its own. Then the growth with length, in one piece, and ten minutes through `separate`.
speechbrain comes from .peers (`make parity`); without it, ours alone is measured.
"""

import argparse
import json
import os
import re
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
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from sepbook.models.sepformer import SepFormer, Transformer  # noqa: E402
from sepbook.separate import separate  # noqa: E402
from sepbook.zoo import import_weights  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "sepformer.json"
PAPER = {"n_filters": 256, "chunk": 250, "blocks": 2, "layers": 8, "heads": 8, "hidden": 1024}
QUICK = {"n_filters": 32, "chunk": 50, "blocks": 1, "layers": 2, "heads": 4, "hidden": 64}
SMALL = {"n_filters": 64, "chunk": 250, "blocks": 1, "layers": 2, "heads": 4, "hidden": 128}


class Theirs(nn.Module):
    """speechbrain's encoder, mask network and decoder, put together as in its recipe."""

    def __init__(self, parts, size: dict):
        super().__init__()
        n, kernel, heads = size["n_filters"], 16, size["heads"]
        how = {"dropout": 0.0, "use_positional_encoding": True, "norm_before": True}
        new = lambda: parts.SBTransformerBlock(size["layers"], n, heads, size["hidden"], **how)
        how_many = {"num_layers": size["blocks"], "K": size["chunk"], "norm": "ln"}
        how_many |= {"linear_layer_after_inter_intra": False}
        self.encoder = parts.Encoder(kernel, n)
        self.masknet = parts.Dual_Path_Model(n, n, new(), new(), **how_many)
        self.decoder = parts.Decoder(n, 1, kernel, stride=kernel // 2, bias=False)

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        """Estimates (batch, source, 1, time) for mix (batch, 1, time)."""
        spec = self.encoder(mix[:, 0])
        waves = [self.decoder(spec * mask).view(len(mix), -1) for mask in self.masknet(spec)]
        est = torch.stack(waves, 1)[:, :, None]
        return F.pad(est, (0, mix.shape[-1] - est.shape[-1]))


def build(which: str, size: dict) -> nn.Module | None:
    """One of the networks, with random weights of its own; None if its toolkit is missing."""
    torch.manual_seed(0)
    if which == "ours":
        return SepFormer(**size, pad=False)
    sys.path.append(str(ROOT / ".peers"))
    try:
        from speechbrain.lobes.models import dual_path
    except ImportError:
        return None
    return Theirs(dual_path, size)


def forward(network: nn.Module, mix: torch.Tensor) -> None:
    """Separate, without gradients."""
    network.eval()
    with torch.no_grad():
        network(mix)


def step(network: nn.Module, mix: torch.Tensor, adam: torch.optim.Optimizer) -> None:
    """One step of training."""
    network.train()
    adam.zero_grad()
    network(mix).abs().mean().backward()
    adam.step()


def high_water() -> float:
    """This process' peak memory in GB; getrusage would count its parent's, too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1e6


def child(which: str, size: str, task: str, seconds: str) -> None:
    """Do `task` and print this process' peak memory in GB and the time of the last run."""
    torch.set_num_threads(THREADS)
    network, length = build(which, json.loads(size)), round(8000 * float(seconds))
    mix = torch.randn(1, 1, length, generator=torch.Generator().manual_seed(1))
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)
    for _ in range(2 if task == "train" else 1):
        started = time.perf_counter()
        if task == "train":
            step(network, mix, adam)
        elif task == "separate":
            est = separate(network.eval(), mix[0], 8000, progress=False)
            assert est.shape == (2, 1, length) and est.isfinite().all()
        else:
            forward(network, mix)
        spent = time.perf_counter() - started
    print("peak", high_water(), "time", spent)


def measured(which: str, size: dict, task: str, seconds: float = 4.0) -> tuple[float, float]:
    """Peak memory in GB and seconds of `task`, in a process of its own."""
    command = [sys.executable, __file__, "--child", which, json.dumps(size), task, str(seconds)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(out[out.index("peak") + 1]), float(out[out.index("time") + 1])


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


def compare(size: dict, repeats: int) -> tuple[list[dict], float | None]:
    """Time and memory of both networks, and how far apart the outputs are."""
    mix = torch.randn(1, 1, 32000, generator=torch.Generator().manual_seed(1))
    names = ("ours", "speechbrain")
    networks = {n: net.eval() for n in names if (net := build(n, size)) is not None}
    apart = None
    if "speechbrain" in networks:
        theirs = networks["speechbrain"]
        import_weights(networks["ours"], theirs.state_dict(), "speechbrain")
        with torch.no_grad():
            want = theirs(mix)
            apart = float((networks["ours"](mix) - want).abs().max() / want.abs().max())
    adams = {net: torch.optim.Adam(net.parameters(), lr=1e-4) for net in networks.values()}
    times = {"forward": seconds(lambda net: forward(net, mix), networks, repeats)}
    train = lambda net: step(net, mix, adams[net])
    times["train"] = seconds(train, networks, max(1, repeats // 2))
    rows = []
    for name, network in networks.items():
        row = {"network": name, "parameters": sum(p.numel() for p in network.parameters())}
        for task in ("forward", "train"):
            row[f"{task}_seconds"] = round(times[task][name], 4)
            row[f"{task}_peak_gb"] = round(measured(name, size, task)[0], 2)
        rows.append(row)
        print(*row.values(), sep="\t", flush=True)
    return rows, apart


def growth(size: dict, lengths: tuple[float, ...]) -> list[dict]:
    """Time and memory of a forward pass in one piece, for longer and longer recordings."""
    rows = []
    for length in lengths:
        gb, spent = measured("ours", size, "forward", length)
        row = {"seconds": length, "forward_seconds": round(spent, 3), "peak_gb": round(gb, 2)}
        rows.append(row | {"real_time_factor": round(spent / length, 3)})
        print(*rows[-1].values(), sep="\t", flush=True)
    return rows


def two_paths(size: dict, chunks: tuple[int, ...]) -> list[dict]:
    """One layer along the chunks and one across them, by the number of chunks."""
    rows, (n, frames) = [], (size["n_filters"], size["chunk"])
    for number in chunks:
        row, x = {"chunks": number}, torch.randn(number, frames, n)
        for path, given in (("along", x), ("across", x.transpose(0, 1).contiguous())):
            network = Transformer(n, size["heads"], size["hidden"], 1)
            best = float("inf")
            for _ in range(2):
                started = time.perf_counter()
                forward(network, given)
                best = min(best, time.perf_counter() - started)
            row[f"{path}_seconds"] = round(best, 4)
        rows.append(row)
        print(*row.values(), sep="\t", flush=True)
    return rows


def headline(rows: list[dict], apart: float | None, long: dict) -> list[dict]:
    """The figures that have a bar."""
    found = []
    if len(rows) > 1:
        for task, what in (("forward", "forward pass"), ("train", "training step")):
            ratio = rows[0][f"{task}_seconds"] / rows[1][f"{task}_seconds"]
            what = f"SepFormer, {what}: our time over speechbrain's"
            found.append({"what": what, "value": round(ratio, 3), "unit": "x", "bar": "at most 1"})
        what = "SepFormer, largest relative difference from speechbrain's output"
        found.append({"what": what, "value": apart, "unit": "", "bar": "at most 1e-5"})
    what = f"SepFormer, peak memory of {long['minutes']:g} minutes through `separate`"
    found.append({"what": what, "value": long["peak_gb"], "unit": "GB", "bar": "at most 4"})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10.0, help="through `separate`")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.child:
        return child(*args.child)
    torch.set_num_threads(THREADS)
    size, repeats = (QUICK, 1) if args.quick else (PAPER, args.repeats)
    print("network\tparameters\tforward s\tGB\ttraining step s\tGB")
    rows, apart = compare(size, repeats)
    print("relative difference of the outputs:", apart)
    print("seconds of sound\tforward s\tGB\tper second")
    paper = growth(size, (2.0, 4.0) if args.quick else (4.0, 8.0, 16.0, 32.0, 64.0))
    small = growth(QUICK if args.quick else SMALL, (5.0,) if args.quick else (30, 60, 120, 240))
    print("chunks\talong s\tacross s")
    paths = two_paths(size, (20, 40) if args.quick else (50, 100, 200, 400, 800, 1600, 3200))
    minutes = 0.2 if args.quick else args.minutes
    gb, spent = measured("ours", size, "separate", 60 * minutes)
    long = {"minutes": minutes, "seconds": round(spent, 1), "peak_gb": round(gb, 2)}
    print("through separate:", long)
    if args.quick:
        return
    report = {
        "title": "SepFormer at the paper's size, 4 s at 8 kHz: ours and speechbrain",
        "headline": headline(rows, apart, long),
        "command": " ".join(["python benchmarks/sepformer.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "device": f"{THREADS} CPU cores",
        "data": "random numbers, batch 1, 32,000 samples; weights equal, outputs compared",
        "repeats": repeats,
        "statistic": "minimum over repeats, networks alternating",
        "relative_error": {"speechbrain": apart},
        "rows": rows,
        "length": {"paper": paper, "small": small, "paths": paths},
        "long": long,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
