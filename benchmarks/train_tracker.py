"""Learn how people differ, write the statistics of the tracker, and measure what it is worth.

    python benchmarks/train_tracker.py --data speech-train --out sepbook/data/tracker.safetensors
                                                    writes results/train_tracker.json, too

`--data` is a corpus (a folder with index.csv; columns file, speaker, sex). The readers that
sepbook/data/speech_validation.txt lists are left out of the statistics and measured on; the
development set is made of the others. `--only-fit` leaves out measuring, which takes minutes.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from bench import figure, save
from denoise import listed
from heard_speech import gain, ordered

import sepbook
from sepbook.classical.tracking import Heard, VoiceTracker, cepstra, clear_frames, exchange, moments
from sepbook.conversations import Conversations, leakage, swaps
from sepbook.engine.corpora import Corpus, preload
from sepbook.engine.examples import DATA

MINUTES, LEAST = 3, 0.35
WHOLE = -20.0  # dB; an absent person's output below this: the separator has left the other whole
SETS = {"development": (3, 16), "test": (21, 10), "test again": (222, 12)}  # seed, conversations
CARD = {
    "what": "centre, directions and spread of the voices of people: see chapter 14, Tracking",
    "command": "python benchmarks/train_tracker.py --data speech-train --out tracker.safetensors",
    "data": "200 readers of LibriSpeech train-clean-100, one utterance each",
    "licence": "CC BY 4.0",
    "attribution": "LibriSpeech (c) 2014 Vassil Panayotov, from LibriVox recordings",
}


def fit(corpus: Corpus) -> tuple[VoiceTracker, dict]:
    """Statistics of every second moment of each reader."""
    rows, who, names = [], [], sorted({row["speaker"] for row in corpus.rows})
    for i, row in enumerate(corpus.rows):
        cepstrum, level = cepstra(corpus[i].mean(0)[None, None])
        x, share = moments(cepstrum, clear_frames(level))
        rows.append(x[0][share[0] > LEAST][::2])
        who += [names.index(row["speaker"])] * len(rows[-1])
    began = time.process_time()
    tracker = VoiceTracker.fit(torch.cat(rows), torch.tensor(who))
    facts = {"readers": len(names), "moments": len(who), "seconds": time.process_time() - began}
    return tracker, facts | {"spread": tracker.statistics.spread.tolist()}


def oracle(est: torch.Tensor, src: torch.Tensor, size: int = 4000) -> torch.Tensor:
    """Each half second in the order that suits it."""
    parts = zip(est.split(size, -1), src.split(size, -1))
    return torch.cat([ordered(a, b) for a, b in parts], -1)


def measure(model, tracker: VoiceTracker, data: Conversations, alone: bool = False) -> list[dict]:
    """For each recording: what another order saves, what is needed, and what each way gains."""
    found = []
    for i in range(len(data)):
        mix, src = data[i]
        with torch.no_grad():
            est = model(mix[None])[0]
        began = time.process_time()
        done = tracker(est)
        seconds = time.process_time() - began
        heard = Heard(*tracker.embed(est), tracker.statistics.spread)
        path, saved = tracker.search(heard)
        row = {"saved": saved, "needed": tracker.needed(heard), "seconds": seconds}
        row["clear"] = float(heard.weight.sum())
        row["changes"] = int((path[1:] != path[:-1]).sum())
        row["changed"] = bool(saved >= row["needed"] and row["changes"])
        if alone:
            for name, wav in {"before": est, "after": done}.items():
                row[f"{name}: leak"] = float(leakage(ordered(wav, src), src).nanmean())
        else:
            believed = exchange(est, heard.orders[path], tracker.sample_rate)
            ways = {"before": est, "after": done, "believed": believed, "oracle": oracle(est, src)}
            for name, wav in ways.items():
                wav = ordered(wav, src)
                row[name] = gain(wav, src, mix)
                row[f"{name}: swaps"], row["windows"] = swaps(wav, src, tracker.sample_rate)
        found.append(row)
        print({key: round(value, 3) for key, value in row.items()}, flush=True)
    return found


def summary(items: list[dict]) -> dict:
    """Means over conversations."""
    told = {name: np.mean([x[name] for x in items]) for name in ("before", "after", "oracle")}
    windows = sum(x["windows"] for x in items)
    for name in ("before", "after"):
        told[f"{name}: swaps"] = sum(x[f"{name}: swaps"] for x in items) / windows
    told["largest loss"] = max(0.0, *(x["before"] - x["after"] for x in items))
    told["seconds"] = np.mean([x["seconds"] for x in items])
    return {key: float(value) for key, value in told.items()} | {"items": len(items)}


def main() -> None:
    """Fit, write, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="corpus with index.csv")
    parser.add_argument("--out", default=str(DATA / "tracker.safetensors"))
    parser.add_argument("--model", default="speech", help="the separator to measure behind")
    parser.add_argument("--only-fit", action="store_true", help="measure nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus, kept = Corpus(args.data, sample_rate=8000), set(listed("speech_validation.txt"))
    known = corpus.subset(lambda row: row["speaker"] not in kept)
    tracker, facts = fit(known)
    tracker.save(args.out, **CARD)
    size = Path(args.out).stat().st_size
    print(f"{facts['readers']} readers, {facts['moments']} moments: {size} bytes", flush=True)
    if args.only_fit:
        return
    tracker = VoiceTracker()
    model = sepbook.load(args.model).eval()
    known = preload(known, level=None)
    unseen = preload(corpus.subset(lambda row: row["speaker"] in kept), level=None)
    items = {}
    for name, (seed, size) in SETS.items():
        people = known if name == "development" else unseen
        how = (people, 60 * MINUTES, size, seed)
        items[name] = measure(model, tracker, Conversations(*how, together=0, alone=0))
    for name, people, seed, size in (
        ("alone, development", known, 21, 12),
        ("alone, test", unseen, 222, 30),
    ):
        lone = Conversations(people, 60, size, seed, together=0, alone=1)
        items[name] = measure(model, tracker, lone, alone=True)
    sums = {name: summary(items[name]) for name in SETS}
    both = summary(items["test"] + items["test again"])
    lone = [x for x in items["alone, test"] if x["before: leak"] < WHOLE]
    split = sum(x["changed"] for x in lone)
    easily = sum(x["changes"] > 0 and x["saved"] >= tracker.margin for x in lone)
    title = "Voices followed by what they sound like: conversations of unseen readers"
    what = f"{args.model}, {both['items']} conversations of three minutes of unseen readers"
    headline = [
        figure(f"{what}: SI-SDR gain as separated", both["before"], "dB"),
        figure("the same, tracked", both["after"], "dB", "above as separated"),
        figure("the same, each half second in the better order (oracle)", both["oracle"], "dB"),
        figure("the same: swaps per window as separated", both["before: swaps"]),
        figure("the same: swaps per window, tracked", both["after: swaps"]),
        figure(
            "one unseen person alone, on one output: minutes that are split",
            split,
            f"of {len(lone)}",
            "0",
        ),
        figure("the same, with the margin of 30 only", easily, f"of {len(lone)}"),
        figure("three minutes: processor time", both["seconds"], "s", "below 0.5"),
    ]
    command = "python benchmarks/train_tracker.py --data speech-train --out tracker.safetensors"
    save(title, headline, command, "one CPU core", fit=facts, sums=sums, items=items)


if __name__ == "__main__":
    main()
