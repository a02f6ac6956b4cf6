"""How many mixtures a second does the loader make? Two voices, 4 s, 8 kHz, from memory.

Run as `python benchmarks/loader.py`; it writes results/loader.json.
"""

import json
import time
from datetime import date
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from sepbook.mixtures import MixtureDataset, example_corpus, preload

RESULT = Path(__file__).resolve().parent.parent / "results" / "loader.json"
SIZE, BATCH, REPEATS = 2000, 16, 5


def rate(batches) -> float:
    """Mixtures per second over one pass, best of several: what the loader can do undisturbed."""
    best = 0.0
    for _ in range(REPEATS):
        started = time.perf_counter()
        count = sum(len(mix) for mix, _ in batches)
        best = max(best, count / (time.perf_counter() - started))
    return best


def main() -> None:
    torch.set_num_threads(1)
    data = MixtureDataset(preload(example_corpus()), n_src=2, seconds=4.0, size=SIZE)
    workers = DataLoader(data, BATCH, num_workers=2, persistent_workers=True)
    next(iter(workers))  # the workers start outside the measurement
    found = {
        "main process": rate(DataLoader(data, BATCH)),
        "DataLoader with 2 workers": rate(workers),
    }
    what = "mixtures of two voices, 4 s at 8 kHz, made from memory"
    record = {
        "title": f"Dynamic mixing: {what}, in batches of {BATCH}",
        "command": "python benchmarks/loader.py",
        "date": date.today().isoformat(),
        "device": "2 CPU cores",
        "headline": [
            {"what": f"{what}, {name}", "value": round(value), "unit": "a second"}
            | ({"bar": "at least 300"} if name == "main process" else {})
            for name, value in found.items()
        ],
        "mixtures per second": {name: round(value) for name, value in found.items()},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
