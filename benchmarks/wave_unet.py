"""Wave-U-Net at the paper's size: ours against the same graph in plain steps, channels first.

    python benchmarks/wave_unet.py            writes results/wave_unet.json
    python benchmarks/wave_unet.py --quick    small networks, one repeat, writes nothing

6 s of noise, 44.1 kHz stereo, batch 1, two threads. No package holds the paper's network; the
plain one below is its text as one writes it down: convolve, rectify, drop every second sample;
interpolate, join the skip, convolve. It gets our weights, and the outputs are compared. M4 has
context; "zeros" is M4 without it, as M1 and M2 are. A training step is forward, mean absolute
output, backward and Adam. Runs alternate; ratios are medians over pairs. Then three minutes of
music through `separate`, M4 and M6. Memory is that of a process of its own.
"""

import torch
import torch.nn.functional as F
from bench import Audio, alone, compare, difference, figure, ratios, report, start
from torch import Tensor, nn

from sepbook.models.wave_unet import SIZES, WaveUNet

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
            skips.append(F.leaky_relu(conv(x), 0.2))
            x = skips[-1][..., ::2]
        x = F.leaky_relu(self.bottom(x), 0.2)
        for conv in self.up:
            x = self.double(x, skips.pop())
            x = x if self.context else F.pad(x, (0, 1))  # with its zeros, so the layer adds none
            x = F.leaky_relu(F.conv1d(x, conv.weight, conv.bias), 0.2)
        spare = (mix.shape[-1] - x.shape[-1]) // 2
        mix = mix[..., spare : spare + x.shape[-1]]
        est = self.out(torch.cat([x, mix], 1)).tanh().unflatten(1, (-1, self.channels))
        return torch.cat([est, mix[:, None] - est.sum(1, keepdim=True)], 1)[..., :n]


def build(which: str, size: dict) -> nn.Module:
    """The network of that name in NAMES, ours or in plain steps."""
    torch.manual_seed(0)
    more = {name: value for name, value in size.items() if name != "name"}
    ours = WaveUNet(**NAMES[size["name"]] | more, sample_rate=44100)
    return Plain(ours) if which == "plain steps" else ours


def main() -> None:
    args = start(__doc__, build, audio=Audio(seconds=6.0, channels=2, rate=44100))
    small, repeats = (QUICK, 1) if args.quick else ({}, args.repeats)
    rows, headline, error = [], [], 0.0
    for name in ("M4", "zeros"):
        size = {"name": name} | small
        ours, plain = (build(which, size) for which in ("ours", "plain steps"))
        error = max(error, difference(ours, plain, "plain steps"))
        rows += compare(build, size, ("ours", "plain steps"), repeats, system=name)
        headline += ratios(f"Wave-U-Net, {name}", rows[-2:])
    headline.append(figure("Wave-U-Net, difference from plain steps", error, "", "1e-4"))
    long, minutes = [], 0.05 if args.quick else 3.0
    for name in ("M4", "M6"):
        found = alone("ours", {"name": name} | small, "separate", 60 * minutes)
        long.append({"system": name, "minutes": minutes} | found)
        print(long[-1], flush=True)
        what = f"Wave-U-Net {name}, {minutes:g} minutes of music through `separate`"
        headline.append(figure(f"{what}: time for one", round(found["seconds"] / minutes, 1), "s"))
        headline.append(figure(f"{what}: peak memory", found["peak_gb"], "GB", "below 3"))
    title = "Wave-U-Net at the paper's size, 6 s at 44.1 kHz stereo: ours and plain steps"
    report(args, title, headline, relative_error=error, rows=rows, long=long)


if __name__ == "__main__":
    main()
