"""How much of the mixture should a denoiser leave in? Tried on noises that nothing else uses.

    python benchmarks/denoise_floor.py [MODEL] --speech speech-train --noise noises/recordings
                                            writes results/denoise_floor.json

The 40 mixtures are those that `benchmarks/denoise.py --apart` measures everything on: readers and
noises that no training knows. The floor of the network that ships was chosen by this table.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from bench import save
from denoise import APART, APART_ITEMS, RATE, apart_set

import sepbook
from sepbook.metrics import pesq, si_sdr, stoi

FLOORS = (0.0, 0.03, 0.05, 0.07, 0.1, 0.15)


def main() -> None:
    """Try each floor, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="denoise-16k")
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--noise", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, found = sepbook.load(args.model).eval(), {}
    for _, _, *pair in apart_set(args.speech, args.noise):
        mix, speech = (torch.from_numpy(wav)[None] for wav in pair)
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
    save(title, headline, command, "one CPU core", rows=rows, items=APART_ITEMS, packages=APART)


if __name__ == "__main__":
    main()
