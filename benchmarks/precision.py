"""What `separate(..., precision="bf16")` brings and costs: every network, time and error.

    python benchmarks/precision.py            writes results/precision.json
    python benchmarks/precision.py --quick    the shipped networks, one repeat, writes nothing

The shipped networks, and those of the papers with random weights, each in its chapter's default
size. Music is the first six seconds of the packaged song, speech two of the packaged voices. Both
precisions alternate on two threads; the gain is the median over pairs. The error is told as the SNR
of the float32 estimates over the difference, and, for the shipped network for speech, by what it
does to the SI-SDR of the voices.
"""

import statistics
import sys

import torch
from bench import LEAST, THREADS, alternate, figure, save, start
from torch import Tensor, nn

from sepbook.metrics import si_sdr
from sepbook.mixtures import example_song, example_voices
from sepbook.models.bsrnn import BSRNN
from sepbook.models.conv_tasnet import ConvTasNet
from sepbook.models.demucs import VERSIONS, Demucs, HDemucs, HTDemucs
from sepbook.models.dprnn import DPRNN
from sepbook.models.mask_networks import OpenUnmix
from sepbook.models.sepformer import SepFormer
from sepbook.models.tasnet import TasNet
from sepbook.models.unet import Spleeter
from sepbook.models.wave_unet import WaveUNet
from sepbook.separate import separate
from sepbook.zoo import load

SONG, VOICES = "song", "voices"
SHIPPED = {
    "shipped for music": (SONG, lambda: load("music")),
    "shipped for speech": (VOICES, lambda: load("speech")),
}
NETWORKS = SHIPPED | {  # what is separated, and the network
    "Open-Unmix": (SONG, OpenUnmix),
    "Spleeter": (SONG, Spleeter),
    "Wave-U-Net": (SONG, WaveUNet),
    "Demucs v3": (SONG, lambda: Demucs(**VERSIONS["v3_wave"])),
    "Hybrid Demucs": (SONG, HDemucs),
    "Hybrid Transformer Demucs": (SONG, HTDemucs),
    "BSRNN, shared trunk": (SONG, lambda: BSRNN(trunk="shared")),
    "TasNet": (VOICES, TasNet),
    "Conv-TasNet": (VOICES, ConvTasNet),
    "Dual-Path RNN": (VOICES, DPRNN),
    "SepFormer": (VOICES, SepFormer),
}


def mixture(which: str) -> tuple[Tensor, Tensor, int]:
    """The mixture (channel, time), its sources, and the sample rate."""
    if which == VOICES:
        voices = example_voices(seconds=4.0)
        return voices.mix, voices.src, voices.sample_rate
    song = example_song()
    return song.mix[:, : 6 * song.sample_rate], song.src, song.sample_rate


def decibels(signal: Tensor, error: Tensor) -> float:
    """The level of a signal over that of an error."""
    return 10 * float((signal.square().sum() / error.square().sum()).log10())


def measure(name: str, which: str, network: nn.Module, repeats: int) -> dict:
    """A row: seconds of both precisions, and how far their estimates lie apart."""
    mix, _, rate = mixture(which)
    run = lambda precision: separate(network, mix, rate, progress=False, precision=precision)
    runs = alternate(run, {"no": "no", "bf16": "bf16"}, repeats, LEAST[0] * (repeats > 1))
    clock = {precision: [c for c, _ in both] for precision, both in runs.items()}
    exact, near = run("no"), run("bf16")
    row = {"network": name, "parameters": sum(p.numel() for p in network.parameters())}
    row |= {"seconds": min(clock["no"]), "seconds_bf16": min(clock["bf16"])}
    pairs = [a / b for a, b in zip(clock["no"], clock["bf16"], strict=True)]
    row |= {"gain": round(statistics.median(pairs), 2), "pairs": len(pairs)}
    return row | {"snr_db": round(decibels(exact, exact - near), 1)}


def change(which: str, network: nn.Module) -> float:
    """What bfloat16 adds to the SI-SDR of the shipped network's speakers, dB, on average."""
    mix, src, rate = mixture(which)
    runs = [separate(network, mix, rate, progress=False, precision=p) for p in ("no", "bf16")]
    exact, near = (si_sdr(est.flatten(1), src.flatten(1)).mean() for est in runs)
    return float(near - exact)


def main() -> None:
    args = start(__doc__, lambda *_: None)
    repeats, rows = 1 if args.quick else args.repeats, []
    for name, (which, build) in (SHIPPED if args.quick else NETWORKS).items():
        torch.manual_seed(0)
        rows.append(measure(name, which, build().eval(), repeats))
        print(*rows[-1].values(), sep="\t", flush=True)
    gains, snrs = ([row[key] for row in rows] for key in ("gain", "snr_db"))
    what = f"bfloat16 in place of float32, {len(rows)} networks: "
    cost = change(VOICES, load("speech"))
    headline = [
        figure(what + "least gain in time", min(gains), "x"),
        figure(what + "largest gain in time", max(gains), "x"),
        figure(what + "lowest SNR of an estimate", min(snrs), "dB"),
        figure("bfloat16 in place of float32: SI-SDR of two voices", round(cost, 3), "dB"),
    ]
    told = {"data": "example_song, 6 s; example_voices, 4 s", "repeats": repeats}
    told |= {"statistic": "times are the minimum of all runs, the gain is the median over pairs"}
    if not args.quick:
        command = " ".join(["python benchmarks/precision.py", *sys.argv[1:]])
        save(
            "bfloat16 against float32", headline, command, f"{THREADS} CPU cores", **told, rows=rows
        )


if __name__ == "__main__":
    main()
