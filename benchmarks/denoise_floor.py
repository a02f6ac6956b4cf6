"""How much of the mixture should a denoiser leave in? Tried on noises that nothing else uses.

    python benchmarks/denoise_floor.py [MODEL] --speech speech-train --noise noises/recordings
                                            writes results/denoise_floor.json

The readers are those whom training left out. The noises are the recordings in two Debian packages
that `benchmarks/noises.py` collects by default and that the training of `denoise-16k` left out
(`--only` named others), so that neither training nor benchmarks/denoise.py knows them. 40 mixtures
of 4 s at 0, 5 and 10 dB. The floor of the network that ships was chosen by this table.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from bench import save
from denoise import RATE, SECONDS, SNRS, at_snr, listed

import sepbook
from sepbook.metrics import pesq, si_sdr, stoi

PACKAGES = ("flare-game", "flightgear-data-base")
FLOORS, ITEMS, SEED = (0.0, 0.03, 0.05, 0.07, 0.1, 0.15), 40, 5


def mixtures(speech: Path, noise: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(mixture, speech), each (1, time)."""
    names = sorted(p.name for p in noise.iterdir() if p.name.startswith(PACKAGES))
    with open(speech / "index.csv", newline="", encoding="utf-8") as index:
        file = {row["speaker"]: row["file"] for row in csv.DictReader(index)}
    readers, frames = listed("speech_validation.txt"), RATE * SECONDS
    rng, items = np.random.default_rng(SEED), []
    for k in range(ITEMS):
        wav = sf.read(noise / names[k % len(names)])[0]
        wav = np.tile(wav, frames // len(wav) + 1) if len(wav) < frames else wav
        start = int(rng.integers(len(wav) - frames + 1))
        voice = sf.read(speech / file[readers[k % len(readers)]])[0]
        at = int(rng.integers(len(voice) - frames))
        pair = at_snr(voice[at:][:frames], wav[start:][:frames], SNRS[k % len(SNRS)])
        items.append(tuple(torch.from_numpy(one)[None] for one in pair))
    return items


def main() -> None:
    """Try each floor, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="denoise-16k")
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--noise", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, found = sepbook.load(args.model).eval(), {}
    for mix, speech in mixtures(args.speech, args.noise):
        for floor in (None, *FLOORS):
            est = mix
            if floor is not None:
                model.floor = floor
                with torch.no_grad():
                    est = model(mix[None])[0, 0]
            gained = float(si_sdr(est, speech) - si_sdr(mix, speech))
            scores = gained, float(pesq(est, speech, RATE)), float(stoi(est, speech, RATE))
            found.setdefault(floor, []).append(scores)
    rows = []
    for floor, scores in found.items():
        gain, quality, clear = (round(float(v), 3) for v in np.mean(scores, 0))
        name = "unprocessed" if floor is None else floor
        rows.append({"floor": name, "si_sdri": gain, "pesq": quality, "stoi": clear})
    best = max(rows[1:], key=lambda row: row["pesq"])
    what = "denoise-16k, the floor with the highest PESQ on noises apart"
    headline = [{"what": what, "value": best["floor"], "unit": "share of the mixture"}]
    command = "python benchmarks/denoise_floor.py --speech DATA/speech-train --noise NOISES"
    title = "How much of the mixture a denoiser should leave in"
    save(title, headline, command, "one CPU core", rows=rows, items=ITEMS, packages=PACKAGES)


if __name__ == "__main__":
    main()
