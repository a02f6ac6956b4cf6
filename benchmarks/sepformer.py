"""SepFormer against speechbrain: equal weights, equal outputs, time, memory, and long recordings.

    python benchmarks/sepformer.py            writes results/sepformer.json
    python benchmarks/sepformer.py --quick    a small network, one repeat, writes nothing

The paper's size, 4 s at 8 kHz, batch 1, two threads, no dropout, as the recipe has it. Ours gets
the peer's random weights, and the outputs are compared. A training step is forward, mean absolute
value, backward and Adam. Runs alternate; ratios are medians over pairs. Peak memory is that of a
process of its own. Then the growth with length, in one piece, and ten minutes through `separate`.
speechbrain comes from .peers (`make parity`); without it, ours alone is measured.
"""

import time

import torch
import torch.nn.functional as F
from bench import alone, compare, difference, figure, forward, ratios, report, start
from torch import nn

from sepbook.models.sepformer import SepFormer, Transformer

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
    if which == "ours":
        return SepFormer(**size, pad=False)
    try:
        from speechbrain.lobes.models import dual_path
    except ImportError:
        return None
    return Theirs(dual_path, size)


def growth(size: dict, lengths: tuple[float, ...]) -> list[dict]:
    """Time and memory of a forward pass in one piece, for longer and longer recordings."""
    rows = []
    for length in lengths:
        told = alone("ours", size, "forward", length)
        factor = {"real_time_factor": round(told["seconds"] / length, 3)}
        rows.append({"seconds": length, "forward_seconds": told.pop("seconds")} | told | factor)
        print(rows[-1], flush=True)
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
        print(row, flush=True)
    return rows


def main() -> None:
    args = start(__doc__, build, minutes=10.0)
    size, repeats = (QUICK, 1) if args.quick else (PAPER, args.repeats)
    errors = {}
    if (theirs := build("speechbrain", size)) is not None:
        errors["speechbrain"] = difference(build("ours", size), theirs, "speechbrain")
    rows = compare(build, size, ("ours", "speechbrain"), repeats)
    paper = growth(size, (2.0, 4.0) if args.quick else (4.0, 8.0, 16.0, 32.0, 64.0))
    small = growth(QUICK if args.quick else SMALL, (5.0,) if args.quick else (30, 60, 120, 240))
    paths = two_paths(size, (20, 40) if args.quick else (50, 100, 200, 400, 800, 1600, 3200))
    minutes = 0.2 if args.quick else args.minutes
    long = {"minutes": minutes} | alone("ours", size, "separate", 60 * minutes)
    print("through separate:", long)
    worst = max(errors.values(), default=0.0)
    headline = [
        *ratios("SepFormer", rows),
        figure("SepFormer, difference from speechbrain's output", worst, "", "at most 1e-5"),
        figure(
            f"SepFormer, {minutes:g} minutes through `separate`: peak memory",
            *(long["peak_gb"], "GB", "at most 4"),
        ),
    ]
    title = "SepFormer at the paper's size, 4 s at 8 kHz: ours and speechbrain"
    length = {"paper": paper, "small": small, "paths": paths}
    report(args, title, headline, relative_error=errors, rows=rows, length=length, long=long)


if __name__ == "__main__":
    main()
