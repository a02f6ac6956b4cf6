"""The live denoiser in folds: each network is judged by noises that its training left out.

    python benchmarks/denoise_folds.py FOLDER --data DATA [--peers FOLDER]
                                            writes results/denoise_folds.json

FOLDER holds fold_1.safetensors to fold_4.safetensors, each written by

    python benchmarks/train_denoiser.py --speech speech-train --noise noise noises/recordings
        noises/effects --music made --readers-out sepbook/data/speech_validation.txt
        --noises-out benchmarks/folds/noises_K.txt --batch 4 --minutes 17
        --out FOLDER/fold_K.safetensors

which leaves out the noises of one list and the readers of sepbook/data/speech_validation.txt. Six
mixtures of 4 s with each of the 21 noises, two each at 0, 5 and 10 dB. Log-MMSE and two packages,
to which all four folds are new, say how hard each fold is. The state that is kept of a training is
the best on other mixtures of the fold's noises.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from bench import ROOT, figure, save
from denoise import MEASURES, RATE, SECONDS, SNRS, ask_peer, at_snr, mean, measure, voices

import sepbook
from sepbook.classical.denoising import Denoiser
from sepbook.zoo import read_card

FOLDS, EACH, SEED, PEERS = 4, 2, 3, ("dtln", "gtcrn")


def members(fold: int) -> list[str]:
    """The noises that a fold leaves out."""
    return (ROOT / "benchmarks" / "folds" / f"noises_{fold}.txt").read_text().split()


def mixtures(data: Path, fold: int) -> list[tuple[str, int, np.ndarray, np.ndarray]]:
    """(noise, SNR, mixture, speech) of each item."""
    waves, frames = list(voices(data / "speech-train").values()), RATE * SECONDS
    rng, items = np.random.default_rng([SEED, fold]), []
    for name in members(fold):
        noise = sf.read(data / "noise" / name)[0]
        for snr in SNRS * EACH:
            voice = waves[rng.integers(len(waves))]
            at, start = (int(rng.integers(len(wav) - frames)) for wav in (voice, noise))
            pair = at_snr(voice[at:][:frames], noise[start:][:frames], snr)
            items.append((Path(name).stem, snr, *pair))
    return items


def cleaned(separate: Callable, items: list) -> np.ndarray:
    """The speech that a separator hears in each mixture."""
    with torch.no_grad():
        mixes = [torch.from_numpy(mix)[None, None] for _, _, mix, _ in items]
        return np.stack([separate(mix)[0, 0, 0].numpy() for mix in mixes])


def main() -> None:
    """Measure every fold, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the weights of the four folds")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peers", type=Path, default=ROOT / ".peers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folds, noises = {}, {}
    for fold in range(1, FOLDS + 1):
        items = mixtures(args.data, fold)
        mixes = np.stack([mix for _, _, mix, _ in items])
        path = args.folder / f"fold_{fold}.safetensors"
        outs = {"unprocessed": mixes, "log-mmse": cleaned(Denoiser(), items)}
        outs["denoise-16k"] = cleaned(sepbook.load(path).eval(), items)
        for name in PEERS:
            if found := ask_peer(name, args.peers, mixes):
                outs[name] = found[0]
        rows = {name: measure(out, items) for name, out in outs.items()}
        card = read_card(path)
        facts = {"noises": members(fold), "steps": card["steps"]}
        facts["minutes"] = round(card["seconds_trained"] / 60, 1)
        folds[fold] = facts | {"systems": {name: mean(some) for name, some in rows.items()}}
        for kind in {row["noise"] for row in rows["denoise-16k"]}:
            of = {n: [row for row in some if row["noise"] == kind] for n, some in rows.items()}
            noises[kind] = {
                n: round(float(np.mean([r["si_sdri"] for r in some])), 2)
                for n, some in of.items()
                if n != "unprocessed"
            }
        print(fold, folds[fold]["systems"], flush=True)
    total = {}
    for name in folds[1]["systems"]:
        found = {m: [fold["systems"][name][m] for fold in folds.values()] for m in MEASURES}
        total[name] = {m: round(float(np.mean(some)), 3) for m, some in found.items()}
        error = np.std(found["si_sdri"], ddof=1) / math.sqrt(FOLDS)
        total[name]["standard error of the gain"] = round(float(error), 3)
    ours = total["denoise-16k"]
    what = "the denoiser in four folds over 21 noises: "
    headline = [
        figure(what + "SI-SDR gain", ours["si_sdri"], "dB"),
        figure(what + "standard error", ours["standard error of the gain"], "dB"),
        figure(what + "PESQ, wide band", ours["pesq"]),
        figure(what + "STOI", ours["stoi"]),
    ]
    command = "python benchmarks/denoise_folds.py FOLDS --data DATA"
    more = {"mean": total, "folds": folds, "noises": dict(sorted(noises.items()))}
    title = "The live denoiser on noises that its training left out"
    save(title, headline, command, "one CPU core", **more)


if __name__ == "__main__":
    main()
