"""U-Net and Spleeter against the same graphs in plain torch: time, memory, long songs.

    python benchmarks/unet.py            writes results/unet.json
    python benchmarks/unet.py --quick    narrow layers, one repeat, writes nothing

No toolkit in PyTorch has these networks. "Plain" is what one writes first: the same weights, the
graph layer by layer as the paper, or Spleeter's code, has it, with F.pad and slices for the
borders, and each transposed convolution as one. Six seconds at 44.1 kHz in stereo, batch 1, two
threads, all stems; for the U-Net the same six seconds at its own 8,192 Hz in mono. A training step
is forward, mean absolute value, backward and Adam. Runs alternate; ratios are medians over pairs.
Peak memory, and three minutes of music through `separate`, in a process of their own.
"""

import torch
import torch.nn.functional as F
from bench import alone, compare, difference, figure, ratios, report, start, use
from torch import Tensor, nn

from sepbook.models.unet import Spleeter, Tower, UNet

AUDIO = {"UNet": (6.0, 1, 8192), "Spleeter": (6.0, 2, 44100)}  # seconds, channels, Hz
WIDTHS = [16, 32, 64, 128, 256, 512]


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


def build(which: str, size: dict) -> nn.Module:
    """The network of that name, ours or in plain torch."""
    torch.manual_seed(0)
    kind = {"UNet": UNet, "Spleeter": Spleeter}[size["name"]]
    network = kind(widths=tuple(size["widths"]))
    if which == "plain torch":
        network.towers = nn.ModuleList(Plain(tower) for tower in network.towers)
    return network


def main() -> None:
    args = start(__doc__, build)
    widths, repeats = ([4, 8, 8, 8, 8, 8], 1) if args.quick else (WIDTHS, args.repeats)
    minutes, rows, long, headline, errors = 0.1 if args.quick else 3.0, [], [], [], {}
    for name, audio in AUDIO.items():
        size = {"name": name, "widths": widths, "audio": audio}
        ours, plain = (build(which, use(size)) for which in ("ours", "plain torch"))
        errors[name] = difference(ours, plain, "plain torch")
        rows += compare(build, size, ("ours", "plain torch"), repeats, system=name)
        headline += ratios(name, rows[-2:])
        took = alone("ours", size, "separate", 60 * minutes)
        long.append({"network": name, "minutes": minutes} | took)
        print(long[-1], flush=True)
        through = f"{name}, {minutes:g} minutes through `separate`"
        spent = round(took["seconds"] / minutes, 1)
        headline.append(figure(f"{through}: time per minute", spent, "s"))
        headline.append(figure(f"{through}: peak memory", took["peak_gb"], "GB", "below 3"))
    title = "U-Net and Spleeter, 6 s of sound: ours and the same graph in plain torch"
    report(args, title, headline, relative_error=errors, rows=rows, long=long)


if __name__ == "__main__":
    main()
