"""What people hear of a two-speaker model: clips, conversations, one voice alone, levels.

    python benchmarks/heard_speech.py --data speech-train --speakers valid.txt [MODEL ...]
                                            writes results/heard_speech.json

`--data` is a corpus (a folder with index.csv; columns file, speaker, sex), `--speakers` lists those
of its speakers whom training left out. Models are names or files of weights; the headline is about
the one that `speech` stands for. Models that were measured before and aren't named now keep their
rows. Everything is drawn with fixed seeds. Conversations go through `sepbook.separate` with its
defaults, once without the tracker of voices (chapter 14); clips and single voices straight through
the network, clips also as the mean of two runs (`--shifts 2`). Half hours of conversation show what
becomes of the order where `separate` joins two segments: such a *junction* is swapped if one order
fits the ten seconds before it, and the other order the ten seconds after it.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench import ROOT, save

import sepbook
from sepbook.classical.tracking import VoiceTracker
from sepbook.conversations import Conversations, leakage, sa_sdr, swaps
from sepbook.engine.corpora import Corpus, preload
from sepbook.engine.streams import SPEAKERS
from sepbook.engine.weights import defaults
from sepbook.metrics import si_sdr

CLIPS, MINUTES, LONG, SEED = 200, 3, 30, 21
LEVELS = (-40, -20, 12)  # dB


def ordered(est: torch.Tensor, src: torch.Tensor) -> torch.Tensor:
    """Estimates (2, 1, time) in the one order that suits the whole recording."""
    return est if sa_sdr(est, src) > sa_sdr(est.flip(0), src) else est.flip(0)


def gain(est: torch.Tensor, src: torch.Tensor, mix: torch.Tensor) -> float:
    """Mean gain of SI-SDR over both sources, dB."""
    return float((si_sdr(est, src) - si_sdr(mix.expand_as(src), src)).mean())


def at_once(model, mix: torch.Tensor) -> torch.Tensor:
    """A short recording in one piece."""
    with torch.no_grad():
        return model(mix[None])[0]


def interval(values: list[float], groups: list[tuple[str, str]], draws: int = 2000) -> float:
    """Half a 95 % confidence interval of the mean, by drawing speakers anew (bootstrap)."""
    rng, names = np.random.default_rng(0), sorted({name for pair in groups for name in pair})
    values, means = np.array(values), []
    index = np.array([[names.index(a), names.index(b)] for a, b in groups])
    for _ in range(draws):
        count = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        weight = count[index].prod(1)
        if weight.sum():
            means.append((values * weight).sum() / weight.sum())
    return float(np.subtract(*np.percentile(means, [97.5, 2.5])) / 2)


def separated(model, mix: torch.Tensor, **how) -> torch.Tensor:
    """A recording of any length through `separate`, with its defaults but for `how`."""
    est = sepbook.separate(model, mix, sample_rate=model.sample_rate, progress=False, **how)
    return torch.stack(list(est.values())).reshape(-1, *mix.shape)


def clips(model, corpus: Corpus, same_sex: float, size: int, run: Callable = at_once) -> dict:
    """People who talk all along for 4 s, levels within 5 dB."""
    data = Conversations(corpus, 4, size, SEED, together=1, alone=0, same_sex=same_sex)
    scores, pairs = [], []
    for i in range(size):
        mix, src = data[i]
        scores.append(gain(ordered(run(model, mix), src), src, mix))
        rng = np.random.default_rng([SEED, 0, i])
        rng.random()  # the kind of the item
        pairs.append(data.draw_people(rng))
    return {
        "gain": float(np.mean(scores)),
        "ci": interval(scores, pairs),
        "below 1 dB": float(np.mean(np.array(scores) < 1)),
        "pairs": len({tuple(sorted(p)) for p in pairs}),
        "items": size,
    }


def conversations(model, corpus: Corpus, size: int, tracker: VoiceTracker | None) -> dict:
    """Three minutes in turns, through `separate`: one order for all of them."""
    model.tracker = tracker
    data = Conversations(corpus, 60 * MINUTES, size, SEED, together=0, alone=0)
    scores, changes, windows = [], 0, 0
    for mix, src in data:
        est = ordered(separated(model, mix), src)
        swapped, clear = swaps(est, src, model.sample_rate)
        changes, windows = changes + swapped, windows + clear
        scores.append(gain(est, src, mix))
    return {
        "gain": float(np.mean(scores)),
        "lowest": float(np.min(scores)),
        "swapped": changes / windows,
        "items": size,
    }


def junctions(model, corpus: Corpus, size: int, around: float = 10.0) -> dict:
    """Half hours in turns: how often the order is another one after a junction of segments."""
    rate, swapped, clear = model.sample_rate, 0, 0
    length = round((getattr(model, "segment", None) or SPEAKERS[0]) * rate)
    hop, near = round(length * (1 - SPEAKERS[1])), round(around * rate)
    data = Conversations(corpus, 60 * LONG, size, SEED, together=0, alone=0)
    for mix, src in data:
        est = ordered(separated(model, mix), src)
        for start in range(hop, mix.shape[-1] - length + 1, hop):
            middle = start + (length - hop) // 2
            here = slice(middle - near, middle + near)
            changes, windows = swaps(est[..., here], src[..., here], near)
            if windows == 2:  # the order is clear on both sides
                swapped, clear = swapped + changes, clear + 1
    return {"swapped": swapped, "clear": clear, "segment": length / rate, "items": size}


def alone(model, corpus: Corpus, size: int) -> dict:
    """One person in turns, 8 s: the second output relative to the mixture."""
    data = Conversations(corpus, 8, size, SEED, together=0, alone=1)
    below = []
    for mix, src in data:
        below.append(float(leakage(ordered(at_once(model, mix), src), src).nanmean()))
    return {
        "median": float(np.median(below)),
        "mean": float(np.mean(below)),
        "below -25 dB": float(np.mean(np.array(below) < -25)),
        "items": size,
    }


def levels(model, corpus: Corpus) -> float:
    """The largest difference of the gain between levels, dB."""
    worst = 0.0
    for mix, src in Conversations(corpus, 4, 8, SEED, together=1, alone=0):
        usual = gain(ordered(at_once(model, mix), src), src, mix)
        for db in LEVELS:
            factor = 10 ** (db / 20)
            est = at_once(model, factor * mix) / factor
            worst = max(worst, abs(gain(ordered(est, src), src, mix) - usual))
    return worst


def measure(name: str, corpus: Corpus, size: int) -> dict:
    """All figures of one model."""
    model = sepbook.load(name).eval()
    tracker = model.tracker
    found = {
        "clips": clips(model, corpus, 0.5, size),
        "same sex": clips(model, corpus, 1.0, size // 2),
        "two runs": clips(model, corpus, 0.5, size, partial(separated, shifts=2)),
        "conversations": conversations(model, corpus, max(2, size // 20), tracker),
        "junctions": junctions(model, corpus, max(1, size // 33)),
        "not tracked": conversations(model, corpus, max(2, size // 20), None),
        "alone": alone(model, corpus, max(4, size // 5)),
        "level": levels(model, corpus),
    }
    print(name, json.dumps(found, indent=1))
    return found


def main() -> None:
    """Measure the models, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["speech", "conv-tasnet-2voices"])
    parser.add_argument("--data", required=True, help="corpus with index.csv")
    parser.add_argument("--speakers", required=True, help="file with the speakers to measure on")
    parser.add_argument("--size", type=int, default=CLIPS, help="clips; the rest in proportion")
    parser.add_argument("--log", help="log.jsonl of the training, for the curve")
    parser.add_argument("--start", type=float, help="SA-SDR of validation before the training, dB")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = Path(args.speakers).read_text().split("\n")
    kept = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
    corpus = Corpus(args.data, sample_rate=8000)
    corpus = preload(corpus.subset(lambda row: row["speaker"] in kept), level=None)
    old = ROOT / "results" / "heard_speech.json"
    before = json.loads(old.read_text()) if old.exists() else {}
    models = [defaults().get(m, m) for m in args.models]
    results = {Path(m).stem: measure(m, corpus, args.size) for m in models}
    results = before.get("models", {}) | results
    results = dict(sorted(results.items(), key=lambda item: item[0] != defaults()["speech"]))
    rows = [
        ("clips: SI-SDR gain (dB)", lambda r: f"{r['clips']['gain']:.1f} ± {r['clips']['ci']:.1f}"),
        ("clips: share below 1 dB", lambda r: f"{r['clips']['below 1 dB']:.0%}"),
        ("same sex: SI-SDR gain (dB)", lambda r: f"{r['same sex']['gain']:.1f}"),
        ("clips, mean of two runs: gain (dB)", lambda r: f"{r['two runs']['gain']:.1f}"),
        ("conversations: gain (dB)", lambda r: f"{r['conversations']['gain']:.1f}"),
        ("conversations: swaps per window", lambda r: f"{r['conversations']['swapped']:.1%}"),
        (
            "half hours: junctions swapped",
            lambda r: f"{r['junctions']['swapped']} of {r['junctions']['clear']}",
        ),
        ("the same, not tracked: gain (dB)", lambda r: f"{r['not tracked']['gain']:.1f}"),
        ("the same, not tracked: swaps", lambda r: f"{r['not tracked']['swapped']:.1%}"),
        ("alone: second output (dB)", lambda r: f"{r['alone']['median']:.0f}"),
        ("largest change with level (dB)", lambda r: f"{r['level']:.2f}"),
    ]
    table = [{"what": what} | {m: f(r) for m, r in results.items()} for what, f in rows]
    more = {"readers": len(kept), "seed": SEED, "models": results, "table": table}
    if args.log:
        log = [json.loads(line) for line in Path(args.log).read_text().splitlines()]
        log = [r for r in log if r.get("valid") is not None]
        more["curve"] = [{k: r[k] for k in ("step", "seconds", "loss", "valid")} for r in log]
        more["start"] = args.start
    else:
        more |= {k: before[k] for k in ("curve", "start") if k in before}
    name, mine = next(iter(results.items()))
    wrong = f"the order changes in {mine['conversations']['swapped']:.0%} of the seconds"
    headline = [
        {
            "what": f"{name}, clips of two unseen readers: SI-SDR gain",
            "value": mine["clips"]["gain"],
        },
        {
            "what": f"{name}, conversations of three minutes, {wrong}: SI-SDR gain",
            "value": mine["conversations"]["gain"],
        },
        {
            "what": f"{name}, one unseen reader alone: median level of the second output",
            "value": mine["alone"]["median"],
        },
    ]
    headline = [row | {"unit": "dB"} for row in headline]
    title = "A two-speaker model on clips, conversations and single voices of unseen readers"
    command = "python benchmarks/heard_speech.py --data speech-train --speakers valid.txt "
    command += f"--size {args.size} " + " ".join(results)
    save(title, headline, command, "one CPU core", **more)


if __name__ == "__main__":
    main()
