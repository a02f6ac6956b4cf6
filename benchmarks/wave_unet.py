"""Wave-U-Net at the paper's size: ours against the same graph in plain steps, channels first.

    python benchmarks/wave_unet.py            writes results/wave_unet.json
    python benchmarks/wave_unet.py --quick    small networks, one repeat, writes nothing

6 s of noise, 44.1 kHz stereo, batch 1, two threads. No package holds the paper's network; the
plain one below is its text as one writes it down: convolve, rectify, drop every second sample;
interpolate, join the skip, convolve. It gets our weights, and the outputs are compared. M4 has
context; "zeros" is M4 without it, as M1 and M2 are. A training step is forward, mean squared
output, backward and Adam. Runs alternate, and the fastest of each counts. Then three minutes of
music through `separate`, M4 and M6. Memory is that of a process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from bench import THREADS, fastest, figure, ratios, report
from torch import Tensor, nn

from sepbook.models.wave_unet import SIZES, WaveUNet
from sepbook.separate import separate

NAMES = {"M4": SIZES["M4"], "zeros": {"context": False}, "M6": SIZES["M6"]}
QUICK = {"levels": 6, "filters": 8}


class Plain(nn.Module):
    """The paper's graph, step by step, with the weights of one of ours."""

    def __init__(self, ours: WaveUNet):
        super().__init__()
        self.sizes, self.channels, self.context = ours.sizes, ours.channels, ours.context
        self.down = nn.ModuleList(block.conv for block in ours.down)
        self.up = nn.ModuleList(block.conv for block in ours.up)
        self.bottom, self.out = ours.bottom.conv, nn.Conv1d(*ours.out.weight.T.shape, 1)
        self.out.weight.data, self.out.bias.data = ours.out.weight.data[..., None], ours.out.bias

    def edges(self, x: Tensor, conv: nn.Conv1d) -> Tensor:
        """With zeros around it, unless there is context."""
        half = 0 if self.context else conv.kernel_size[0] // 2
        return F.pad(x, (half, half)) if half else x

    def double(self, x: Tensor, skip: Tensor) -> Tensor:
        """Twice the rate, and the features of the way down beside it."""
        if self.context:
            x = F.interpolate(x, size=2 * x.shape[-1] - 1, mode="linear", align_corners=True)
            spare = (skip.shape[-1] - x.shape[-1]) // 2
            return torch.cat([x, skip[..., spare : spare + x.shape[-1]]], 1)
        n = x.shape[-1]
        x = F.interpolate(F.pad(x, (1, 1)), size=2 * n + 3, mode="linear", align_corners=True)
        return torch.cat([x, F.pad(skip, (2, 1))], 1)[..., : 2 * n + 4]

    def forward(self, mix: Tensor) -> Tensor:
        """Estimates (batch, source, channel, time), of which the last is the difference."""
        n = mix.shape[-1]
        into, out = self.sizes(n) if self.context else (n + -n % 2 ** len(self.up), 0)
        before = (into - out) // 2 if self.context else 0
        mix, skips = F.pad(mix, (before, into - before - n)), []
        x = mix
        for conv in self.down:
            skips.append(F.leaky_relu(conv(self.edges(x, conv)), 0.2))
            x = skips[-1][..., ::2]
        x = F.leaky_relu(self.bottom(self.edges(x, self.bottom)), 0.2)
        for conv in self.up:
            x = self.double(x, skips.pop())
            x = F.leaky_relu(conv(x if self.context else F.pad(x, (0, 1))), 0.2)
        spare = (mix.shape[-1] - x.shape[-1]) // 2
        mix = mix[..., spare : spare + x.shape[-1]]
        est = self.out(torch.cat([x, mix], 1)).tanh().unflatten(1, (-1, self.channels))
        return torch.cat([est, mix[:, None] - est.sum(1, keepdim=True)], 1)[..., :n]


def build(which: str, quick: bool) -> nn.Module:
    """A network with random weights: a name of NAMES, or "plain" and one."""
    torch.manual_seed(0)
    name = which.removeprefix("plain ")
    ours = WaveUNet(**NAMES[name] | (QUICK if quick else {}), sample_rate=44100)
    return Plain(ours) if name != which else ours


def noise(seconds: float) -> Tensor:
    """A mixture (1, channel, time)."""
    draw = torch.Generator().manual_seed(1)
    return 0.1 * torch.randn(1, 2, round(44100 * seconds), generator=draw)


def forward(network: nn.Module, mix: Tensor) -> Tensor:
    """Separate, without gradients."""
    with torch.no_grad():
        return network.eval()(mix)


def step(network: nn.Module, mix: Tensor, adam: torch.optim.Optimizer) -> None:
    """One step of training."""
    adam.zero_grad()
    network.train()(mix).square().mean().backward()
    adam.step()


def child(which: str, quick: str, task: str, seconds: str) -> None:
    """Do a task alone in a process, and print what it took."""
    network, mix = build(which, quick == "quick"), noise(float(seconds))
    if task == "separate":
        network.sample_rate = 22050  # as published; `separate` resamples on both ways
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)
    runs = {
        "forward": lambda: forward(network, mix),
        "train": lambda: step(network, mix, adam),
        "separate": lambda: separate(network.eval(), mix[0], 44100, progress=False),
    }
    for _ in range(2 if task == "train" else 1):  # the optimiser's memory comes with the first
        started = time.perf_counter()
        runs[task]()
        spent = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory
    gigabytes = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    print(json.dumps({"seconds": round(spent, 3), "peak_gb": round(gigabytes, 2)}))


def alone(which: str, quick: bool, task: str, seconds: float) -> dict:
    """Seconds and peak memory (GB) of a task in its own process."""
    words = [which, "quick" if quick else "full", task, str(seconds)]
    command = [sys.executable, sys.argv[0], "--child", *words]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


def compare(name: str, quick: bool, repeats: int) -> list[dict]:
    """A row for ours and one for the plain steps: forward pass and training step."""
    mix = noise(1.0 if quick else 6.0)
    networks = {"ours": build(name, quick), "plain steps": build(f"plain {name}", quick)}
    got, want = (forward(network, mix) for network in networks.values())
    error = float((got - want).abs().max() / want.abs().max())
    adams = {net: torch.optim.Adam(net.parameters(), lr=1e-4) for net in networks.values()}
    times = {
        "forward": fastest(lambda net: forward(net, mix), networks, repeats),
        "train": fastest(lambda net: step(net, mix, adams[net]), networks, max(1, repeats // 2)),
    }
    rows = []
    for key, which in zip(networks, (name, f"plain {name}")):
        row = {"system": name, "network": key, "relative_error": error}
        row["parameters"] = sum(p.numel() for p in networks[key].parameters())
        for task, found in times.items():
            row |= {f"{task}_{unit}": round(value, 4) for unit, value in found[key].items()}
            row[f"{task}_peak_gb"] = alone(which, quick, task, 1.0 if quick else 6.0)["peak_gb"]
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(THREADS)
    if args.child:
        return child(*args.child)
    rows, headline = [], []
    for name in ("M4", "zeros"):
        rows += compare(name, args.quick, 1 if args.quick else args.repeats)
        headline += ratios(f"Wave-U-Net, {name}", rows[-2:])
    error = max(row["relative_error"] for row in rows)
    headline.append(figure("Wave-U-Net, difference from plain steps", error, "", "1e-4"))
    long, minutes = [], 0.05 if args.quick else 3.0
    for name in ("M4", "M6"):
        found = alone(name, args.quick, "separate", 60 * minutes)
        long.append({"system": name, "minutes": minutes} | found)
        print(long[-1], flush=True)
        what = f"Wave-U-Net {name}, {minutes:g} minutes of music through `separate`"
        headline.append(figure(f"{what}: time for one", round(found["seconds"] / minutes, 1), "s"))
        headline.append(figure(f"{what}: peak memory", found["peak_gb"], "GB", "below 3"))
    title = "Wave-U-Net at the paper's size, 6 s at 44.1 kHz stereo: ours and plain steps"
    data = "random numbers, batch 1, 6 s of stereo at 44.1 kHz; weights equal, outputs compared"
    report(args, title, headline, data=data, rows=rows, long=long)


if __name__ == "__main__":
    main()
