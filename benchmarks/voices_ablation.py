"""What do more voices bring? Train on readers, and on readers with others; measure on new readers.

    python benchmarks/voices_ablation.py VOICES --work FOLDER --steps 3000
                                            writes results/voices_ablation.json

VOICES is what `benchmarks/speech_voices.py` wrote. A small Conv-TasNet is trained several times
from the same beginning, with the same number of steps on clips of four seconds in which both
speak, and each time on other voices. All are measured as in `benchmarks/heard_speech.py`, on 200
clips of the 21 readers that no training knows, half of them of two men or two women; what is
measured is the average of the last weights, so nothing is chosen on these readers. FOLDER holds
checkpoints; the same command goes on where it stopped. `--only` names some of the trainings.
"""

import argparse
import json
import os
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import torch  # noqa: E402
from bench import ROOT, save  # noqa: E402
from bench.recipe import LONG  # noqa: E402
from heard_speech import clips  # noqa: E402
from train_speech import BATCH, Voices  # noqa: E402

from sepbook.conversations import Conversations  # noqa: E402
from sepbook.learner import Learner  # noqa: E402
from sepbook.models.conv_tasnet import ConvTasNet  # noqa: E402

SIZE = {"n_filters": 256, "kernel": 64, "bottleneck": 96, "hidden": 192, "skip": 96, "blocks": 6}
SPEEDS = [f"readers{percent}" for percent in (80, 86, 93, 107, 115, 124)]
SETS = {
    "readers": ["readers"],
    "and at six other speeds": ["readers", *SPEEDS],
    "and through a vocoder": ["readers", *SPEEDS, "world"],
    "and synthesisers": ["readers", *SPEEDS, "espeak", "flite"],
    "and recorded voices": ["readers", *SPEEDS, "recorded"],
    "and neural synthesis": ["readers", *SPEEDS, "synthetic"],
    "and all of these": [
        "readers",
        *SPEEDS,
        "world",
        "espeak",
        "flite",
        "recorded",
        "synthetic",
        "words",
        "digits",
    ],
}
CLIPS = 200
SLUGS = {name: name.replace(" ", "-") for name in SETS}


def network() -> ConvTasNet:
    """The same weights each time."""
    torch.manual_seed(0)
    how = {"repeats": 2, "mask": "relu", "last_residual": False, "rescale": True}
    return ConvTasNet(2, sample_rate=8000, objective="si_sdr", **SIZE, **how)


def main() -> None:
    """Train, measure, write after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("voices", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    valid = Voices(args.voices, ["valid"])
    path = ROOT / "results" / "voices_ablation.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for name in args.only:
        voices = Voices(args.voices, SETS[name])
        data = Conversations(voices, 4, 100 * BATCH, 1, together=1, alone=0)
        learner = Learner(
            network(), data, batch_size=BATCH, lr=1e-3, folder=args.work / SLUGS[name], **LONG
        )
        log = learner.fit(steps=args.steps)
        heard = clips(learner.best(), valid, 0.5, CLIPS)
        minutes = sum(map(voices.length, range(len(voices.rows)))) / voices.sample_rate / 60
        row = {"voices": name, "people": len({row["speaker"] for row in voices.rows})}
        row |= {"minutes of sound": round(minutes), "steps": args.steps}
        row |= {"loss": round(float(log.loss.iloc[-5:].mean()), 2)}
        row |= {key: round(heard[key], 3) for key in ("gain", "ci", "below 1 dB")}
        rows = [r for r in rows if r["voices"] != name] + [row]
        rows.sort(key=lambda r: list(SETS).index(r["voices"]))
        print(row, flush=True)
        best = max(rows, key=lambda r: r["gain"])
        what = f"clips of new readers, trained on readers {best['voices']}: SI-SDR gain"
        headline = [{"what": what, "value": best["gain"], "unit": "dB"}]
        command = f"python benchmarks/voices_ablation.py VOICES --work WORK --steps {args.steps}"
        save("What more voices bring", headline, command, "one CPU core", rows=rows, clips=CLIPS)


if __name__ == "__main__":
    main()
