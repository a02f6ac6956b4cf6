"""The dual-path RNN against asteroid: equal weights, equal outputs, time and memory.

    python benchmarks/dprnn.py            writes results/dprnn.json
    python benchmarks/dprnn.py --quick    a small network, one repeat, writes nothing

The published network with frames of 16 samples (chunks of 100, 128 channels) and the paper's with
frames of 2 (chunks of 250, 64 channels), 4 s at 8 kHz, batch 1, two threads. Ours gets asteroid's
random weights, and its outputs are compared. A training step is forward, mean absolute value,
backward and Adam. Runs alternate; ratios are medians over pairs. Peak memory is that of a process
of its own per network. Then one long LSTM against a dual-path block of as many weights, and up to
ten minutes of sound, whole and through `separate`. Asteroid comes from .peers (`make parity`).
"""

import torch
from bench import alone, compare, difference, fastest, figure, ratios, report, start
from einops import rearrange

from sepbook.models.dprnn import DPRNN, DualPath, merge, segment

SIZES = {
    "window 16": {"kernel": 16, "chunk": 100, "bottleneck": 128, "hidden": 128, "blocks": 6},
    "window 2": {"kernel": 2, "chunk": 250, "bottleneck": 64, "hidden": 128, "blocks": 6},
}
QUICK = {"window 16": {"kernel": 16, "chunk": 100, "bottleneck": 16, "hidden": 16, "blocks": 1}}


def build(which: str, size: dict) -> torch.nn.Module | None:
    """One of the networks, with random weights of its own; None if its toolkit is missing."""
    if which == "ours":
        return DPRNN(**size, edge="whole", pad=False)
    try:
        from asteroid.models import DPRNNTasNet as Theirs
    except ImportError:
        return None
    frame = {"kernel_size": size["kernel"], "stride": size["kernel"] // 2}
    inner = {"bn_chan": size["bottleneck"], "hid_size": size["hidden"]}
    return Theirs(2, chunk_size=size["chunk"], n_repeats=size["blocks"], **frame, **inner)


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
            taken = fastest(lambda run: run(x), {"long": flat, "dual": dual}, repeats)  # noqa: B023
            found = {f"{name}_seconds": round(t, 4) for name, t in taken.items()}
            rows.append({"frames": frames} | found)
    return rows


def main() -> None:
    args = start(__doc__, build)
    sizes, repeats = (QUICK, 1) if args.quick else (SIZES, args.repeats)
    rows, errors, headline = [], {}, []
    for title, size in sizes.items():
        if (theirs := build("asteroid", size)) is not None:
            errors[title] = difference(build("ours", size), theirs, "asteroid")
        rows += (found := compare(build, size, ("ours", "asteroid"), repeats, setting=title))
        headline += ratios(f"DPRNN, {title}", found)
    folded = square((1000, 2000) if args.quick else (1000, 4000, 16000, 64000), min(repeats, 3))
    print(*folded, sep="\n")
    one, ten = (0.05, 0.2) if args.quick else (1.0, 10.0)
    long = []
    for task, minutes in (("forward", one), ("forward", ten), ("separate", ten)):
        told = alone("ours", sizes["window 16"], task, 60 * minutes)
        long.append({"task": task, "minutes": minutes} | told)
        print(long[-1], flush=True)
    worst = max(errors.values(), default=0.0)
    growth = long[1]["seconds"] / long[0]["seconds"] * one / ten
    headline += [
        figure("DPRNN, difference from asteroid's output", worst, "", "at most 1e-5"),
        figure(
            f"DPRNN, {ten:g} minutes in one piece: time per minute over that of one",
            *(round(growth, 2), "x", "about 1"),
        ),
        figure(
            f"DPRNN, {ten:g} minutes through `separate`: peak memory",
            *(long[2]["peak_gb"], "GB", "at most 4"),
        ),
    ]
    title = "Dual-path RNN, 4 s at 8 kHz: ours and asteroid"
    more = {"one_long_lstm_or_dual_path": folded, "long": long}
    report(args, title, headline, relative_error=errors, rows=rows, **more)


if __name__ == "__main__":
    main()
