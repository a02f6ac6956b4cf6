"""TasNet against asteroid's LSTMTasNet: equal weights, equal outputs, time and memory.

    python benchmarks/tasnet.py            writes results/tasnet.json
    python benchmarks/tasnet.py --quick    small networks, one repeat, writes nothing

The paper's LSTM and BLSTM, and asteroid's default (windows of 2 ms), 4 s at 8 kHz, batch 1, two
threads. Ours gets asteroid's random weights, and its outputs are compared. A training step is
forward, mean absolute value, backward and Adam. Runs alternate; ratios are medians over pairs.
Peak memory is that of a process of its own per network. Also: what the window length costs, and a
causal network that runs live. Asteroid comes from .peers (`make parity`).
"""

import time

import torch
from bench import (
    THREADS,
    compare,
    difference,
    fastest,
    figure,
    forward,
    noise,
    ratios,
    report,
    start,
)

from sepbook.engine.layers import LiveState
from sepbook.models.tasnet import TasNet, frames

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
    if which == "ours":
        norm = "cLN" if size["causal"] else "gLN"
        return TasNet(**size, norm=norm, unit=False, skip=False, pad=False, dropout=0.3)
    try:
        from asteroid.models import LSTMTasNet
    except ImportError:
        return None
    names = {"kernel": "kernel_size", "hidden": "hid_size", "layers": "n_layers"}
    how = {names.get(k, k): v for k, v in size.items() if k != "causal"}
    return LSTMTasNet(2, bidirectional=not size["causal"], **how)


def windows(kernels: tuple[int, ...], repeats: int) -> list[dict]:
    """What the length of the window costs: the small network on 4 s."""
    mix, rows = noise(), []
    for kernel in kernels:
        network = {"net": TasNet(**SMALL, kernel=kernel, stride=kernel)}
        taken = fastest(lambda net: forward(net, mix), network, repeats)["net"]
        rate = {"steps_per_second": 8000 // kernel, "latency_ms": kernel / 8}
        factor = {"real_time_factor": round(taken / 4, 4)}
        rows.append({"kernel": kernel} | rate | factor)
    return rows


def live(size: dict, length: float) -> dict:
    """The causal network frame by frame, one thread: is it faster than the sound, and the same?"""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = TasNet(**size, norm="frame").eval()
    cut = frames(noise(length)[0], network.kernel, network.stride)
    parts, slowest, started = [], 0.0, time.perf_counter()
    with torch.no_grad():
        with LiveState():
            for block in cut.split(1, 1):
                begun = time.perf_counter()
                parts.append(network.separate_frames(block))
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


def main() -> None:
    args = start(__doc__, build)
    sizes, repeats = (QUICK, 1) if args.quick else (PAPER, args.repeats)
    rows, errors, headline = [], {}, []
    for title, size in sizes.items():
        if (theirs := build("asteroid", size)) is not None:
            errors[title] = difference(build("ours", size), theirs, "asteroid")
        rows += (found := compare(build, size, ("ours", "asteroid"), repeats, setting=title))
        headline += ratios(f"TasNet, {title}", found)
    costs = windows((80, 40) if args.quick else (160, 80, 40, 20, 10, 5), repeats)
    small = SMALL | {"kernel": 40, "stride": 40, "causal": True}
    length = 0.5 if args.quick else 10.0
    streams = {
        name: live(size, length) for name, size in (("LSTM", sizes["LSTM"]), ("small", small))
    }
    print(*costs, *streams.items(), sep="\n")
    worst = max(errors.values(), default=0.0)
    headline += [figure("TasNet, difference from asteroid's output", worst, "", "at most 1e-5")]
    for name, bar in (("small", "below 1"), ("LSTM", "")):  # which reads 124 MB for each frame
        what = f"TasNet {name} live, frames of 5 ms, one core: seconds for one of sound"
        headline += [figure(what, streams[name]["real_time_factor"], "", bar)]
    title = "TasNet at the paper's sizes, 4 s at 8 kHz: ours and asteroid's"
    more = {"relative_error": errors, "rows": rows, "windows": costs, "stream": streams}
    report(args, title, headline, **more)


if __name__ == "__main__":
    main()
