"""The models that ship, on the same fixed mixtures of voices they have never heard.

    python benchmarks/shipped.py            writes results/shipped.json

The packaged voices are synthetic, and no model was trained on them. The figure on the readers who
were kept apart stands on each model's card; the command there repeats it where the data is.
"""

import json
import time
from datetime import date
from pathlib import Path

import torch

from sepbook.metrics import evaluate
from sepbook.mixtures import MixtureDataset, example_corpus
from sepbook.zoo import available, load, read_card

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "shipped.json"
SIZE, SECONDS, SEED = 100, 4.0, 0


def voices(n_src: int) -> list:
    """Fixed mixtures of the packaged voices, levels within five decibels."""
    data = MixtureDataset(
        example_corpus(), n_src, SECONDS, SIZE, SEED, level="active", level_range=(-27.5, -22.5)
    )
    return [data[i] for i in range(SIZE)]


def row(name: str) -> dict:
    """One model: what it is, what it cost, what it gains, and how fast it is."""
    model, card = load(name), read_card(name)
    test = voices(len(model.sources))
    started = time.perf_counter()
    gain = evaluate(model, test, ("si_sdri",), sample_rate=model.sample_rate)["si_sdri"]
    seconds = time.perf_counter() - started
    return {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "megabytes": round(
            (ROOT / "sepbook/weights" / f"{name}.safetensors").stat().st_size / 1e6, 2
        ),
        "trained on": card.get("data"),
        "minutes": round(card.get("seconds_trained", 0) / 60, 1),
        "device": card.get("device"),
        "seed": card.get("seed"),
        "readers kept apart, SI-SDR gain": round(card["scores"]["si_sdri"], 2),
        "packaged voices, SI-SDR gain": round(float(gain.mean()), 2),
        "seconds per minute of audio": round(seconds / (SIZE * SECONDS / 60), 2),
    }


def main() -> None:
    torch.set_num_threads(2)
    rows = [row(name) for name in available().index]
    for line in rows:
        print(*line.values(), sep="\t")
    report = {
        "title": "The models that ship: SI-SDR gain on voices unseen in training",
        "headline": [
            {
                "what": f"{r['model']}: SI-SDR gain on the packaged voices",
                "value": r["packaged voices, SI-SDR gain"],
                "unit": "dB",
            }
            for r in rows
        ],
        "command": "python benchmarks/shipped.py",
        "date": date.today().isoformat(),
        "device": "2 CPU cores",
        "mixtures": f"{SIZE} of {SECONDS:g} s, seed {SEED}, levels within 5 dB",
        "rows": rows,
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
