"""Conv-TasNet against torchaudio and asteroid: equal weights, equal outputs, time and memory.

    python benchmarks/conv_tasnet.py            writes results/conv_tasnet.json
    python benchmarks/conv_tasnet.py --quick    a small network, one repeat, writes nothing

The paper's size, 4 s at 8 kHz, batch 1, two threads. Ours gets each peer's random weights, and its
outputs are compared. A training step is forward, mean absolute value, backward and Adam. Runs
alternate; ratios are medians over pairs. Peak memory is that of a process of its own per network.
Then live streams, on one thread, and long recordings through `separate`. Asteroid comes from
.peers (`make parity`); without it, torchaudio alone is compared.
"""

import time

import torch
from bench import THREADS, alone, compare, difference, figure, noise, ratios, report, start

from sepbook.models.conv_tasnet import ConvTasNet, Stream

PAPER = {"n_filters": 512, "bottleneck": 128, "hidden": 512, "skip": 128, "repeats": 3}
QUICK = {"n_filters": 64, "bottleneck": 32, "hidden": 64, "skip": 32, "repeats": 1}
LIVE = {"n_filters": 256, "kernel": 32, "bottleneck": 96, "hidden": 192, "skip": 96, "blocks": 7}
LIVE |= {"repeats": 2}


def build(which: str, size: dict) -> torch.nn.Module | None:
    """One of the networks, with random weights of its own; None if its toolkit is missing."""
    if which == "torchaudio":
        from torchaudio.models import ConvTasNet as Theirs

        narrow = size["n_filters"], 3, size["bottleneck"], size["hidden"]
        return Theirs(2, 16, *narrow, 8, size["repeats"], "relu")
    if which == "asteroid":
        try:
            from asteroid.models import ConvTasNet as Theirs
        except ImportError:
            return None
        widths = {"bn_chan": size["bottleneck"], "hid_chan": size["hidden"]}
        widths |= {"skip_chan": size["skip"], "n_repeats": size["repeats"]}
        return Theirs(2, n_filters=size["n_filters"], mask_act="relu", **widths)
    extra = {"last_residual": True, "pad": False} if which == "ours as asteroid" else {}
    return ConvTasNet(**size, mask="relu", **{"last_residual": False} | extra)


def live(size: dict, milliseconds: float, length: float) -> dict:
    """A causal network on a stream, one thread: real-time factor, and equality with offline."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network, mix = ConvTasNet(**size, norm="cLN", mask="relu", causal=True).eval(), noise(length)
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
    row = {
        "parameters": network.n_params,
        "block_ms": milliseconds,
        "latency_ms": stream.latency / 8 + milliseconds,
        "algorithmic_latency_ms": stream.latency / 8,
        "real_time_factor": round(taken / length, 3),
        "slowest_block_ms": round(1000 * slowest, 2),
        "relative_error": float((torch.cat(parts, -1) - want).abs().max() / want.abs().max()),
    }
    print(row, flush=True)
    return row


def main() -> None:
    args = start(__doc__, build)
    size, repeats = (QUICK, 1) if args.quick else (PAPER, args.repeats)
    errors = {}
    for peer, ours in (("torchaudio", "ours"), ("asteroid", "ours as asteroid")):
        if (theirs := build(peer, size)) is not None:
            errors[peer] = difference(build(ours, size), theirs, peer)
    rows = compare(build, size, ("ours", "torchaudio", "asteroid"), repeats)
    length = 1.0 if args.quick else 20.0
    streams = [live(LIVE, 16.0, length), live(LIVE, 8.0, length)]
    streams += [] if args.quick else [live(PAPER, 64.0, length), live(PAPER, 32.0, length)]
    long = []
    for minutes in (0.05, 0.1) if args.quick else (1.0, 3.0, 10.0):
        long.append({"minutes": minutes} | alone("ours", size, "separate", 60 * minutes))
        print(long[-1], flush=True)
    minute = lambda row: row["seconds"] / row["minutes"]
    through = f"Conv-TasNet, {long[-1]['minutes']:g} minutes through `separate`"
    headline = [
        *ratios("Conv-TasNet", rows),
        figure(
            "Conv-TasNet, peak memory of training", rows[0]["train_peak_gb"], "GB", "at most 3.0"
        ),
        figure("Conv-TasNet, difference from a peer's output", max(errors.values()), "", "1e-5"),
        figure(
            "Conv-TasNet (0.9 M) live, blocks of 16 ms, one core: seconds for one of sound",
            *(streams[0]["real_time_factor"], "", "below 1"),
        ),
        figure(
            f"{through}: time per minute over that of one",
            *(round(minute(long[-1]) / minute(long[0]), 2), "x", "about 1"),
        ),
        figure(f"{through}: peak memory", long[-1]["peak_gb"], "GB", "at most 4"),
    ]
    title = "Conv-TasNet at the paper's size, 4 s at 8 kHz: ours, torchaudio, asteroid"
    report(args, title, headline, relative_error=errors, rows=rows, streams=streams, long=long)


if __name__ == "__main__":
    main()
