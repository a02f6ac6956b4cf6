"""What does the live denoiser know by heart: its readers, or its noises?

    python benchmarks/denoise_known.py [MODEL ...] --speech speech-train --noise noise CORPUS ...
        --apart CORPUS                      writes results/denoise_known.json

The same network cleans mixtures of readers that its training knew and of readers that it left out,
each with noises that the training knew (`--noise`, the corpora of the training) and with noises
that it left out (the list sepbook/data/noise_validation.txt, and the corpus `--apart`). A hundred
mixtures of 4 s each, at 0, 5 and 10 dB; both kinds of readers are mixed with the same passages.

Two more networks stand in the results. `before` is what shipped with 256 units, `wider` what
shipped with 384 until there were more voices; the card of `denoise-16k` has the commands of both.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from bench import save
from denoise import RATE, SECONDS, SNRS, at_snr, listed
from train_denoiser import recordings

import sepbook
from sepbook.engine.corpora import Corpus
from sepbook.metrics import si_sdr

ITEMS, SEED = 100, 8


def passage(wav: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Four seconds, from -1 to 1."""
    frames = RATE * SECONDS
    wav = np.tile(wav, frames // len(wav) + 1) if len(wav) < frames else wav
    start = int(rng.integers(len(wav) - frames + 1))
    return wav[start : start + frames] / 32768


def gains(model: torch.nn.Module, voices: list, corpora: list) -> tuple[float, float]:
    """Mean SI-SDR gain in dB, and its standard error."""
    found = []
    for k in range(ITEMS):
        rng, corpus = np.random.default_rng([SEED, k]), corpora[k % len(corpora)]
        noise = passage(corpus[rng.integers(len(corpus))], rng)
        voice = passage(voices[np.random.default_rng([SEED, 1, k]).integers(len(voices))], rng)
        pair = at_snr(voice, noise, SNRS[k % len(SNRS)])
        mix, speech = (torch.from_numpy(np.float32(wav))[None] for wav in pair)
        with torch.no_grad():
            est = model(mix[None])[0, 0]
        found.append(float(si_sdr(est, speech) - si_sdr(mix, speech)))
    return float(np.mean(found)), float(np.std(found) / ITEMS**0.5)


def main() -> None:
    """Measure all four pairings, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["denoise-16k"])
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--noise", type=Path, nargs="+", required=True)
    parser.add_argument("--apart", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    open_ = lambda path: Corpus(path, sample_rate=RATE, channels=1)
    people, kinds = (set(listed(f"{w}_validation.txt")) for w in ("speech", "noise"))
    speech, noise = open_(args.speech), [open_(path) for path in args.noise]
    readers = {
        "known": recordings(speech, lambda row: row["speaker"] not in people),
        "new": recordings(speech, lambda row: row["speaker"] in people),
    }
    noises = {
        "known": [recordings(corpus, lambda row: row["file"] not in kinds) for corpus in noise],
        "new": [recordings(corpus, lambda row: row["file"] in kinds) for corpus in noise]
        + [recordings(open_(args.apart), lambda row: True)],
    }
    noises = {which: [group for group in groups if group] for which, groups in noises.items()}
    rows, networks = [], {}
    for name in args.models:
        model = sepbook.load(name).eval()
        model.floor = 0.0
        card = model.card
        networks[Path(name).stem] = {
            "steps": card["steps"],
            "minutes": round(card["seconds_trained"] / 60),
            "validation": round(card["scores"]["valid"], 3),
        }
        for who, voices in readers.items():
            for what, corpora in noises.items():
                gain, error = (round(v, 3) for v in gains(model, voices, corpora))
                row = {"model": Path(name).stem, "readers": who, "noises": what}
                rows.append(row | {"si_sdri": gain, "standard_error": error})
                print(*rows[-1].values(), flush=True)
    last = {(row["readers"], row["noises"]): row["si_sdri"] for row in rows[-4:]}
    lost = [last["known", w] - last["new", w] for w in noises]
    what = "gain that known readers have over new ones, mean of known and new noises"
    headline = [{"what": what, "value": round(sum(lost) / 2, 3), "unit": "dB"}]
    command = "python benchmarks/denoise_known.py before.safetensors wider.safetensors "
    command += "denoise-16k --speech DATA/speech-train --noise DATA/noise NOISES/recordings "
    command += "NOISES/effects --apart APART/recordings"
    title = "What the live denoiser knows by heart"
    save(
        title,
        headline,
        command,
        "one CPU core",
        networks=networks,
        rows=rows,
        items=ITEMS,
        floor=0.0,
    )


if __name__ == "__main__":
    main()
