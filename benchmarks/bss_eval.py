"""How fast is BSS Eval here, and how far from its references? 30 s of four stems at 44.1 kHz.

Run as `python benchmarks/bss_eval.py`, alone on the machine; it writes results/bss_eval.json. Ours
and theirs run in turn, in one process, with one thread per core; the best run counts.
"""

import json
import os
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path

import mir_eval
import museval
import numpy as np
import torch
from einops import rearrange

from sepbook.masks import oracle
from sepbook.metrics import bss_eval, bss_eval_v4
from sepbook.mixtures import example_song

RESULT = Path(__file__).resolve().parent.parent / "results" / "bss_eval.json"
SECONDS, RATE, REPEATS = 30, 44100, 3
DIFFERENCE = "largest difference, dB"


def row(what: str, value: float, unit: str, bar: str = "") -> dict:
    """A figure for the table of results."""
    return {"what": what, "value": value, "unit": unit, "bar": bar}


def material() -> tuple[torch.Tensor, torch.Tensor]:
    """Stems and their oracle estimates (source, channel, time): the example song, over and over."""
    song = example_song()
    repeats = -(-SECONDS * RATE // song.mix.shape[-1])
    src = song.src.repeat(1, 1, repeats)[..., : SECONDS * RATE].double()
    est = oracle(src.sum(0), src, mask="irm")
    torch.manual_seed(0)
    return est, src + 1e-5 * torch.randn_like(src)  # 16-bit noise, without which rounding decides


def timed(run: Callable) -> tuple[float, np.ndarray]:
    started = time.perf_counter()
    scores = run()
    return time.perf_counter() - started, np.stack([np.asarray(x) for x in scores])


def compare(ours: Callable, theirs: Callable) -> dict[str, float]:
    """Best seconds of both, run in turn, their ratio, and the largest difference in dB."""
    ours()  # imports and first allocations stay outside
    runs = [(timed(ours), timed(theirs)) for _ in range(REPEATS)]
    fast, slow = (min(run[k][0] for run in runs) for k in (0, 1))
    (_, got), (_, want) = runs[-1]
    assert np.array_equal(np.isnan(got), np.isnan(want))
    return {
        "seconds": round(fast, 2),
        "seconds of the peer": round(slow, 2),
        "ratio": round(slow / fast, 1),
        DIFFERENCE: float(f"{np.nanmax(np.abs(got - want)):.1e}"),
    }


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(os.cpu_count())
    est, src = material()
    axes = "source channel time -> source time channel"
    theirs = [rearrange(x, axes).numpy() for x in (src, est)]
    mono_est, mono_src = est.mean(1), src.mean(1)
    arrays = (mono_src.numpy(), mono_est.numpy())
    v4 = compare(
        lambda: bss_eval_v4(est, src, RATE, RATE),
        lambda: museval.evaluate(*theirs, win=RATE, hop=RATE),
    )
    mono = compare(
        lambda: bss_eval(mono_est, mono_src),
        lambda: mir_eval.separation.bss_eval_sources(*arrays, False)[:3],
    )
    record = {
        "title": f"BSS Eval on {SECONDS} s of four stems at 44.1 kHz, float64",
        "command": "python benchmarks/bss_eval.py",
        "date": date.today().isoformat(),
        "device": f"{os.cpu_count()} CPU cores",
        "headline": [
            row(
                "framewise v4, stereo, against museval: its time over ours",
                v4["ratio"],
                "x",
                "at least 10",
            ),
            row("the same: largest difference", v4[DIFFERENCE], "dB", "<= 1e-3"),
            row("BSS Eval, mono, against mir_eval: its time over ours", mono["ratio"], "x"),
            row("the same: largest difference", mono[DIFFERENCE], "dB", "<= 1e-6"),
        ],
        "bss_eval_v4 against museval, stereo, frames of 1 s": v4,
        "bss_eval against mir_eval, mono": mono,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
