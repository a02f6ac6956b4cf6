"""U-Net and Spleeter against the same graphs in plain torch: time, memory, long songs.

    python benchmarks/unet.py            writes results/unet.json
    python benchmarks/unet.py --quick    narrow layers, one repeat, writes nothing

No toolkit in PyTorch has these networks. "Plain" is what one writes first: the same weights, the
graph layer by layer as the paper, or Spleeter's code, has it, with F.pad and slices for the
borders, and each transposed convolution as one. Six seconds at 44.1 kHz in stereo, batch 1, two
threads, all stems; for the U-Net the same six seconds at its own 8,192 Hz in mono. A training step
is forward, mean absolute value, backward and Adam. Runs alternate, and the fastest of each counts.
Peak memory, and three minutes of music through `separate`, in a process of their own.
"""

import argparse
import json
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from bench import THREADS, figure, forward, ratios, step
from torch import Tensor, nn

from sepbook.models.unet import Spleeter, Tower, UNet
from sepbook.separate import separate

ROOT = Path(__file__).resolve().parent.parent


class Plain(nn.Module):
    """The graph of a tower, written straight down."""

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower, self.paper = tower, isinstance(tower, Tower)
        tower.to(memory_format=torch.contiguous_format)

    def forward(self, x: Tensor) -> Tensor:
        t, kept = self.tower, []
        for conv, norm in zip(t.down, t.down_norm):
            x = F.conv2d(F.pad(x, (1, 2, 1, 2)), conv.weight, conv.bias, 2)
            raw, x = x, F.leaky_relu(norm(x), 0.2) if self.paper else F.elu(norm(x))
            kept.append(x if self.paper else raw)
        x = kept.pop()
        norms = [*t.up_norm, nn.Identity()][: len(t.up)]
        for k, (conv, norm) in enumerate(zip(t.up, norms)):
            x = F.conv_transpose2d(x, conv.weight, conv.bias, 2)[..., 1:-2, 1:-2]
            if not self.paper:
                x = norm(F.elu(x))
            elif kept:
                x = F.relu(norm(x))
            x = F.dropout(x, 0.5, self.training) if k < 3 else x
            x = torch.cat([kept.pop(), x], 1) if kept else x
        return x if self.paper else t.last(x)


def build(which: str, widths: list[int]) -> nn.Module:
    """ "UNet" or "Spleeter", ours or plain."""
    name, _, plain = which.partition(" ")
    network = {"UNet": UNet, "Spleeter": Spleeter}[name](widths=tuple(widths))
    if plain:
        network.towers = nn.ModuleList(Plain(tower) for tower in network.towers)
    return network


def noise(network: nn.Module, seconds: float) -> Tensor:
    """The mixture (1, channel, time) that everything is measured on."""
    draw = torch.Generator().manual_seed(1)
    return torch.randn(1, network.channels, round(seconds * network.sample_rate), generator=draw)


def child(which: str, widths: str, task: str, seconds: str) -> None:
    """Do a task, and print what it took."""
    torch.manual_seed(0)
    network = build(which, json.loads(widths))
    mix = noise(network, float(seconds))
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)
    runs = {
        "forward": lambda: forward(network, mix),
        "train": lambda: step(network, mix, adam),
        "song": lambda: separate(
            network.eval(), torch.randn(2, round(44100 * float(seconds))), 44100, progress=False
        ),
    }
    for _ in range(2 if task == "train" else 1):  # the optimiser's memory comes with the first
        started = time.perf_counter()
        runs[task]()
        spent = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()
    gigabytes = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    print(json.dumps({"seconds": round(spent, 3), "peak_gb": round(gigabytes, 2)}))


def alone(which: str, widths: list[int], task: str, seconds: float) -> dict[str, float]:
    """Seconds and peak memory of a task, in its own process."""
    command = [sys.executable, sys.argv[0], "--child", which, json.dumps(widths), task]
    done = subprocess.run([*command, str(seconds)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, widths: list[int], repeats: int) -> list[dict]:
    """A row for ours and a row for plain: times of forward pass and training step, memory."""
    torch.manual_seed(0)
    nets = {which: build(which, widths) for which in (name, f"{name} plain")}
    adams = {net: torch.optim.Adam(net.parameters(), lr=1e-4) for net in nets.values()}
    mix = noise(nets[name], 6.0)
    tasks = {"forward": forward, "train": lambda net, mix: step(net, mix, adams[net])}
    rows = [{"network": which} for which in nets]
    for task, run in tasks.items():
        count = repeats if task == "forward" else max(1, repeats // 2)
        best = {which: float("inf") for which in nets}
        for repeat in range(count + 1):  # one more to warm up
            for which, net in nets.items():
                started = time.perf_counter()
                run(net, mix)
                taken = time.perf_counter() - started
                best[which] = min(best[which], taken) if repeat else best[which]
        for row in rows:
            row[f"{task}_seconds"] = round(best[row["network"]], 4)
            row[f"{task}_peak_gb"] = alone(row["network"], widths, task, 6.0)["peak_gb"]
    rows[0]["parameters"] = nets[name].n_params
    print(*rows, sep="\n", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="narrow layers, write nothing")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    if args.child:
        child(*args.child)
        return
    widths = [4, 8, 8, 8, 8, 8] if args.quick else [16, 32, 64, 128, 256, 512]
    minutes, rows, long, headline = 0.1 if args.quick else 3.0, [], [], []
    for name in ("UNet", "Spleeter"):
        rows += compare(name, widths, 1 if args.quick else args.repeats)
        headline += ratios(name, rows[-2:])
        took = alone(name, widths, "song", 60 * minutes)
        long.append({"network": name, "minutes": minutes} | took)
        print(long[-1], flush=True)
        through = f"{name}, {minutes:g} minutes through `separate`"
        headline.append(
            figure(f"{through}: seconds per minute", round(took["seconds"] / minutes, 1))
        )
        headline.append(figure(f"{through}: peak memory", took["peak_gb"], "GB", "below 3"))
    told = {
        "title": "U-Net and Spleeter, 6 s of stereo: ours and the same graph in plain torch",
        "headline": headline,
        "command": " ".join(["python benchmarks/unet.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "device": f"{THREADS} CPU cores",
        "data": "random numbers, batch 1, 6 s; all stems of each network",
        "repeats": args.repeats,
        "statistic": "minimum over repeats (half as many for training), networks alternating",
    }
    if not args.quick:
        path = ROOT / "results" / "unet.json"
        path.write_text(json.dumps(told | {"rows": rows, "long": long}, indent=1) + "\n")


if __name__ == "__main__":
    main()
