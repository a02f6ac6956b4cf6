"""A denoiser at 16 kHz on recordings at 48 kHz: what becomes of the band above 8 kHz.

    python benchmarks/band_above.py [--voices FOLDER] [--model NAME]

writes results/band_above.json. FOLDER holds voices at 48 kHz that reach above 8 kHz; without it,
those of the Linux package alsa-utils, where it is installed (eight announcements, 13 s with
pauses). They are mixed with five made noises at 0, 5 and 10 dB: white, pink, brown and wandering
pink noise, and knocks. The speech of each mixture is measured with the band left out, as it is, and
shared out, which is the default.
"""

import argparse
from pathlib import Path

import torch
from bench import figure, save

import sepbook
from sepbook.engine.streams import share_above
from sepbook.metrics import si_sdr
from sepbook.sound import load

RATE, EDGE, SNRS = 48000, 8000, (0, 5, 10)
WAYS = {"left out": "none", "as it is": "speech", "shared out": "share"}


def voices(folder: Path) -> torch.Tensor:
    """All recordings of a folder (1, time), a quarter of a second apart."""
    pause, parts = torch.zeros(1, RATE // 4), []
    for path in sorted(folder.glob("*.wav")):
        wav, rate = load(path)
        if rate == RATE and "Noise" not in path.name:
            parts += [wav[:1], pause]
    return torch.cat(parts, -1)


def noises(time: int) -> dict[str, torch.Tensor]:
    """Made noises (1, time) by name."""
    hz = torch.arange(time // 2 + 1) * RATE / time

    def coloured(seed: int, tilt: float) -> torch.Tensor:
        draw = torch.randn(1, time, generator=torch.Generator().manual_seed(seed))
        return torch.fft.irfft(
            torch.fft.rfft(draw) * (hz.clamp(min=50) / 1000) ** (-tilt / 2), time
        )

    draw = torch.Generator().manual_seed(3)
    level = 4 * torch.randn(1, 1, time // 24000 + 2, generator=draw)
    level = torch.nn.functional.interpolate(level, time, mode="linear")[0]
    knocks, fall = torch.zeros(1, time), torch.exp(-torch.arange(9600) / 1500)
    for start in torch.randint(0, time - 9600, (40,), generator=draw).tolist():
        knocks[:, start : start + 9600] += fall
    made = {"white": coloured(0, 0), "pink": coloured(1, 1), "brown": coloured(2, 2)}
    made["wandering pink"] = coloured(4, 1) * 10 ** (level / 20)
    return made | {"knocks": knocks * coloured(5, 0)}


def above(wav: torch.Tensor) -> torch.Tensor:
    """What lies above the edge."""
    spec = torch.fft.rfft(wav)
    return torch.fft.irfft(
        spec * (torch.arange(spec.shape[-1]) * RATE >= EDGE * wav.shape[-1]), wav.shape[-1]
    )


def measure(model: str, speech: torch.Tensor) -> list[dict]:
    """One row for each noise and SNR."""
    network, bright, rows = sepbook.load(model), above(speech), []
    for name, noise in noises(speech.shape[-1]).items():
        for snr in SNRS:
            scale = (speech.square().sum() / noise.square().sum()).sqrt() * 10 ** (-snr / 20)
            mix = speech + scale * noise
            found = sepbook.separate(network, mix, RATE, fill="none", progress=False)
            low = torch.stack(list(found.values()))
            whole = mix - low.sum(0)
            shared = share_above(low, whole, RATE, EDGE)[0]
            row = {"noise": name, "snr": snr}
            for way, more in zip(WAYS, (0, whole, shared)):
                est = found["speech"] + more
                wrong = above(est) - bright
                ratio = 10 * (bright.square().sum() / wrong.square().sum()).log10().item()
                row[way] = {
                    "above": round(ratio, 2),
                    "si_sdr": round(si_sdr(est, speech).item(), 2),
                }
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voices", type=Path, default=Path("/usr/share/sounds/alsa"))
    parser.add_argument("--model", default="denoise")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(args.model, voices(args.voices))
    mean = lambda way, key, snr: (
        sum(r[way][key] for r in rows if r["snr"] == snr) / len(noises(99999))
    )
    table = {
        snr: {way: {k: round(mean(way, k, snr), 2) for k in ("above", "si_sdr")} for way in WAYS}
        for snr in SNRS
    }
    headline = [
        figure(
            f"speech at 48 kHz, {snr} dB: SNR above 8 kHz, shared out (as it is: "
            f"{row['as it is']['above']:.1f}; left out: {abs(row['left out']['above']):.1f})",
            row["shared out"]["above"],
            "dB",
        )
        for snr, row in table.items()
    ]
    title = "The band above a denoiser's: left out, as it is, shared out"
    command = "python benchmarks/band_above.py"
    save(title, headline, command, "CPU, one thread", model=args.model, by_snr=table, items=rows)


if __name__ == "__main__":
    main()
