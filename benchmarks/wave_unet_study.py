"""U-Net or Wave-U-Net? The questions of Cohen-Hadria et al. (2019), asked at a very small scale.

    python benchmarks/wave_unet_study.py            writes results/wave_unet_study.json, 3 minutes
    python benchmarks/wave_unet_study.py --quick    a few steps, writes nothing

The drums of the packaged song against everything else, mono, 8,192 Hz. All learn from its first
three seconds, with the same number of items of half a second, and are measured on the next three:
SI-SDR improvement. The mean over three seeds, and the smallest and the largest.
"""

import time

import torch
from bench import figure, one_core, save
from torch import Tensor, nn
from torch.utils.data import Dataset

from sepbook.engine.examples import example_song
from sepbook.learner import Learner
from sepbook.metrics import si_sdr
from sepbook.models.unet import UNet
from sepbook.models.wave_unet import WaveUNet

RATE, STEPS, SEEDS = 8192, 150, (0, 1, 2)
NAMES = ("drums", "accompaniment")
WAVE = {"sources": NAMES, "channels": 1, "sample_rate": RATE, "levels": 5, "filters": 8}
PICTURE = {"sources": NAMES, "n_fft": 256, "hop": 64, "n_bins": 128, "widths": (8, 16, 24, 32, 40)}
PICTURE |= {"dropout": 0.0}  # too few steps for it


class Cuts(Dataset):
    """Half a second of each source: from places and with gains of their own, or as it is."""

    def __init__(self, src: Tensor, remix: bool):
        self.src, self.remix = src, remix

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        at = torch.randint(self.src.shape[-1] - RATE // 2, (len(self.src),)).tolist()
        at = at if self.remix else at[:1] * len(at)
        src = torch.stack([s[:, a : a + RATE // 2] for s, a in zip(self.src, at)])
        if self.remix:
            src = src * 10 ** (torch.empty(len(src), 1, 1).uniform_(-6, 6) / 20)
        return src.sum(0), src


def without_skips(network: WaveUNet) -> WaveUNet:
    """The same network, whose skips carry nothing."""
    for level in network.up:
        level.register_forward_pre_hook(lambda _, given: (given[0], 0 * given[1]))
    return network


VARIANTS = {
    "Wave-U-Net": lambda: WaveUNet(**WAVE),
    "direct outputs": lambda: WaveUNet(**WAVE, output="direct"),
    "without context": lambda: WaveUNet(**WAVE, context=False),
    "without skips": lambda: without_skips(WaveUNet(**WAVE)),
    "with GLU and LSTM": lambda: WaveUNet(**WAVE, gated=True, lstm=1),
    "half the data": lambda: WaveUNet(**WAVE),
    "without remixing": lambda: WaveUNet(**WAVE),
    "U-Net, mask": lambda: UNet(**PICTURE),
    "U-Net, magnitude": lambda: UNet(**PICTURE, output="magnitude"),
}


def gain(network: nn.Module, src: Tensor) -> float:
    """SI-SDR improvement in dB, mean over drums and the rest."""
    mix = src.sum(0)
    with torch.no_grad():
        est = network.eval()(mix[None])[0]
    return float((si_sdr(est, src) - si_sdr(mix.expand_as(src), src)).mean())


def run(name: str, seed: int, steps: int, early: Tensor, late: Tensor) -> dict:
    """Train one variant with one seed."""
    torch.manual_seed(seed)
    network = VARIANTS[name]()
    known = early[..., : early.shape[-1] // 2] if name == "half the data" else early
    data = Cuts(known, remix=name != "without remixing")
    started = time.process_time()
    lr = 2e-3 if isinstance(network, UNet) else 5e-3
    Learner(network, data, batch_size=1, lr=lr, schedule="cosine", seed=seed).fit(
        steps=steps, progress=False
    )
    row = {"variant": name, "seed": seed, "parameters": network.n_params}
    row["cpu_seconds"] = round(time.process_time() - started, 1)
    row |= {"early": round(gain(network, early), 2), "late": round(gain(network, late), 2)}
    print(row, flush=True)
    return row


def main() -> None:
    quick = one_core(__doc__.splitlines()[0])
    song = example_song(RATE, mono=True)
    drums = song.src[song.sources.index("drums")]
    halves = torch.stack([drums, song.mix - drums]).chunk(2, -1)
    seeds, steps = (SEEDS[:1], 3) if quick else (SEEDS, STEPS)
    rows = [run(name, seed, steps, *halves) for seed in seeds for name in VARIANTS]
    if quick:
        return
    late = {name: [row["late"] for row in rows if row["variant"] == name] for name in VARIANTS}
    save(
        "U-Net or Wave-U-Net: drums of one song, three seconds to learn from",
        [figure(f"{k}, SI-SDR gain", round(sum(v) / len(v), 2), "dB") for k, v in late.items()],
        "python benchmarks/wave_unet_study.py",
        "1 CPU core",
        data="Falcon 69, mono, 8,192 Hz: first three seconds to learn from, next three measured",
        steps=STEPS,
        statistic=f"mean over seeds {SEEDS}",
        rows=rows,
    )


if __name__ == "__main__":
    main()
