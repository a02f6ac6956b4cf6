"""Demucs in four versions against demucs 4.1 and torchaudio: equal weights, time and memory.

    python benchmarks/demucs.py            writes results/demucs.json
    python benchmarks/demucs.py --quick    small networks, one repeat, writes nothing

The published sizes, 6 s at 44.1 kHz in stereo, batch 1, two threads. Ours gets the peer's random
weights, and outputs are compared. A training step is forward, mean absolute value, backward and
Adam. Runs alternate; ratios are medians over pairs. Then three minutes of music through
`separate`, each network in a process of its own; version 1 also with weights in bfloat16. demucs
comes from .peers (`make parity`).
"""

import sys

import torch
from bench import ROOT, Audio, alone, compare, difference, figure, ratios, report, start

from sepbook.models.demucs import STEMS, VERSIONS, Demucs, HDemucs, HTDemucs

sys.path.insert(0, str(ROOT / ".peers"))  # this file has the name of a package there
STEREO = Audio(seconds=6.0, channels=2, rate=44100)
OLD = {"gelu": False, "lstm_layers": 2, "dconv_mode": 0, "norm_starts": 99}
RELEASED = {"dconv_mode": 3, "t_layers": 5, "segment": 7.8}
PEERS = {
    "v1": ("demucs", "Demucs", OLD | {"resample": False, "normalize": False}),
    "v2": ("demucs", "Demucs", OLD),
    "v3_wave": ("demucs", "Demucs", {}),
    "hybrid": ("hdemucs", "HDemucs", {}),
    "transformer": ("htdemucs", "HTDemucs", RELEASED),
}
WIDTHS = {  # of the first layer; version 1 was published in two
    "v1": 100,
    "v1, 64 channels": 64,
    "v1, bfloat16": 100,
    "v2": 64,
    "v3_wave": 64,
    "hybrid": 48,
    "transformer": 48,
}


def build(which: str, size: dict) -> torch.nn.Module | None:
    """One of the networks, with random weights of its own; None if its toolkit lacks it."""
    if size["version"].endswith(", bfloat16"):  # so that it never is larger than that
        torch.set_default_dtype(torch.bfloat16)
    network = _build(which, size)
    torch.set_default_dtype(torch.float32)
    return network


def _build(which: str, size: dict) -> torch.nn.Module | None:
    version, hidden = size["version"].split(",")[0], size["hidden"]
    bottom = 512 if hidden == 48 else 32
    if which == "ours":
        if version == "hybrid":
            return HDemucs(hidden=hidden)
        if version == "transformer":
            return HTDemucs(hidden=hidden, bottom=bottom)
        return Demucs(**VERSIONS[version] | {"hidden": hidden})
    if which == "torchaudio":
        if version != "hybrid":
            return None
        from torchaudio.models import HDemucs as Theirs

        return Theirs(list(STEMS), channels=hidden)
    module, kind, how = PEERS[version]
    how = how | ({"bottom_channels": bottom} if version == "transformer" else {})
    try:
        theirs = getattr(__import__(f"demucs.{module}", fromlist=[kind]), kind)
    except ImportError:
        return None
    return theirs(list(STEMS), channels=hidden, **how)


def main() -> None:
    args = start(__doc__, build, audio=STEREO)
    repeats, rows, errors, headline, long = 1 if args.quick else args.repeats, [], {}, [], []
    for version, hidden in WIDTHS.items():
        size = {"version": version, "hidden": 8 if args.quick else hidden}
        size["hidden"] = max(size["hidden"], 16 if version in ("v3_wave", "hybrid") else 8)
        size |= {"audio": (1.0, 2, 44100)} if args.quick else {}
        if not version.startswith("v1"):  # whose layers are those of version 2
            names = ("ours", "demucs", "torchaudio")
            errors |= {
                f"{version}, {peer}": difference(build("ours", size), theirs, peer)
                for peer in names[1:]
                if (theirs := build(peer, size)) is not None
            }
            found = compare(build, size, names, repeats, version=version)
            headline += ratios(f"Demucs, {version}", found)
            rows += found
        minutes = 0.1 if args.quick else 3.0
        long.append({"version": version} | alone("ours", size, "separate", 60 * minutes))
        long[-1]["seconds_per_minute"] = round(long[-1]["seconds"] / minutes, 1)
        print(long[-1], flush=True)
        what = f"Demucs, {version}: three minutes of music through `separate`, "
        headline.append(figure(what + "peak memory", long[-1]["peak_gb"], "GB", "under 3"))
        headline.append(figure(what + "per minute", long[-1]["seconds_per_minute"], "s"))
    worst = max(errors.values(), default=float("nan"))
    headline.append(figure("Demucs, largest difference from a peer's output", worst, "", "1e-4"))
    title = "Demucs in four versions, 6 s at 44.1 kHz in stereo: ours, demucs 4.1, torchaudio"
    report(args, title, headline, relative_error=errors, rows=rows, long=long)


if __name__ == "__main__":
    main()
