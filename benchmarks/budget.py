"""One budget for every system: train each config of benchmarks/budget, and score it.

    python benchmarks/budget.py DATA --songs MADE --work WORK              all, 60 minutes each
    python benchmarks/budget.py DATA --work WORK --only dprnn --minutes 5
    python benchmarks/budget.py DATA --songs MADE --work WORK --only unet --fold all

DATA is as for benchmarks/leaderboard.py, MADE a corpus of made songs to train on
(`python -m sepbook.songs MADE --count 300 --voices SPEECH`). Networks and checkpoints go to WORK:
the same command goes on where it stopped, and WORK/log.jsonl tells what ran when. Scores go to
results/budget.json.

A budget is CPU minutes on one core: a dozen steps are timed first, and the training has as many
steps as fit, so that `sepbook train --config ... --steps N` repeats it exactly. Music networks
learn from made songs alone, and all real songs judge them. `--fold SONG` adds vocals and drums of
the other real songs, over bass and other of made ones; `--fold all` does so five times, and makes
one row in which every song is judged by the network that never met it.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402
from leaderboard import HERE, all_sets, keep, measure, network  # noqa: E402

from sepbook.engine.corpora import read_index  # noqa: E402
from sepbook.engine.experiments import (  # noqa: E402  # noqa: E402
    Lessons,
    Mixing,
    Net,
    Training,
    data_sets,
    network_to_train,
    read_config,
)
from sepbook.leaderboard import interval  # noqa: E402
from sepbook.learner import Learner  # noqa: E402

OUT = HERE.parent / "results" / "budget.json"
NAMES = {"deep_clustering": "Deep clustering", "chimera": "Chimera", "upit": "uPIT"}
NAMES |= {"tasnet": "TasNet", "conv_tasnet": "Conv-TasNet", "dprnn": "DPRNN"}
NAMES |= {"sepformer": "SepFormer, small", "feed_forward": "Feed-forward mask"}
NAMES |= {"recurrent": "Recurrent mask", "open_unmix": "Open-Unmix", "unet": "U-Net"}
NAMES |= {"spleeter": "Spleeter", "wave_unet": "Wave-U-Net", "demucs": "Demucs"}
NAMES |= {"hdemucs": "Hybrid Demucs", "htdemucs": "HT Demucs, small", "bsrnn": "BSRNN, small"}


@dataclass(frozen=True)
class Job:
    """A config, and the real song that it leaves out; None: no real song is used."""

    config: Path
    fold: str | None

    @property
    def name(self) -> str:
        return self.config.stem + (f"-{self.fold}" if self.fold else "")

    @property
    def speech(self) -> bool:
        return "speech-train" in self.config.read_text(encoding="utf-8")

    def weights(self, work: Path) -> Path:
        return work / f"{self.name}.safetensors"


def songs_folder(data: Path, made: Path, fold: str | None, work: Path) -> Path:
    """Made songs, and for a fold the vocals and drums of the other real songs, as one corpus."""
    folder = work / f"songs-{fold or 'made'}"
    folder.mkdir(parents=True, exist_ok=True)
    songs: dict[str, dict[str, Path]] = {}
    for row in read_index(made):
        songs.setdefault(row["excerpt"], {})[row["stem"]] = made / row["file"]
    backs, lines = list(songs.values()), [f"{name},{name}" for name in songs]
    real: dict[str, dict[str, Path]] = {}
    for row in read_index(data / "music-stems") if fold else ():
        if row["song"] != fold:
            stems = real.setdefault(f"real-{row['excerpt']}", {})
            stems[row["stem"]] = data / "music-stems" / row["file"]
            lines.append(f"real-{row['excerpt']},{row['song']}")
    for k, (name, stems) in enumerate(real.items()):
        back = backs[(7 * k + 3) % len(backs)]
        songs[name] = {n: stems[n] for n in ("vocals", "drums")}
        songs[name] |= {n: back[n] for n in ("bass", "other")}
    for name, stems in songs.items():
        (folder / name).mkdir(exist_ok=True)
        for stem, path in stems.items():
            link = folder / name / f"{stem}{path.suffix}"
            if not link.exists():
                shutil.copyfile(path, link)
    text = "\n".join(["excerpt,song", *dict.fromkeys(lines)]) + "\n"
    (folder / "index.csv").write_text(text, encoding="utf-8")
    return folder


def parts_of(group: type, options: dict) -> object:
    """The options of one section of a config."""
    return group(**{k: v for k, v in options.items() if k in group.__dataclass_fields__})


def steps_for(job: Job, sounds: Path, minutes: float, device: str) -> int:
    """How many steps fit into a budget, validation included."""
    options, arguments = read_config(job.config)
    options["data"] = str(sounds)
    lessons, how = parts_of(Lessons, options), parts_of(Training, options)
    model = network_to_train(Net(options["model"]), arguments, lessons, how.seed)
    train, valid, _ = data_sets(model, lessons, parts_of(Mixing, options), how.seed)
    from accelerate import Accelerator

    cpu = Accelerator(cpu=True) if device == "cpu" else None
    learner = Learner(model, train, valid, batch_size=how.batch_size, ema=how.ema, accelerator=cpu)
    clock = time.process_time if device == "cpu" else time.perf_counter
    learner.fit(steps=2, progress=False)  # the first steps are slow; it validates at the end
    started = clock()
    learner.validate()
    judging = clock() - started
    started = clock()
    learner.fit(steps=14, progress=False)
    step = (clock() - started - judging) / 12
    epoch = len(train) / how.batch_size
    return max(1, round(60 * minutes / (max(step, 1e-4) + judging / epoch)))


def run_logged(words: list[str], log: Path, **told) -> int:
    """Run a command, and append what ran when, and for how many CPU minutes, to a log."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    row = told | {"started": datetime.now().isoformat(timespec="seconds"), "command": words[3:]}
    code = subprocess.run(words).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    row |= {"ended": datetime.now().isoformat(timespec="seconds"), "exit": code}
    with open(log, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(row | {"cpu_minutes": round(spent / 60, 2)}) + "\n")
    return code


def train(job: Job, sounds: Path, work: Path, minutes: float, device: str) -> int:
    """Train a network, or go on; return its number of steps."""
    plan = work / f"{job.name}.json"
    if not plan.exists():
        told = {"steps": steps_for(job, sounds, minutes, device), "minutes": minutes}
        plan.write_text(json.dumps(told))
    steps = json.loads(plan.read_text())["steps"]
    if job.weights(work).exists():
        return steps
    words = [sys.executable, "-m", "sepbook.cli", "train", "--config", str(job.config)]
    words += ["--data", str(sounds), "--steps", str(steps), "--device", device, "--quiet"]
    words += ["--folder", str(work / f"run-{job.name}"), "--out", str(job.weights(work))]
    code = run_logged(words, work / "log.jsonl", name=job.name, steps=steps)
    if code:
        sys.exit(f"{job.name} stopped with {code}; the same command goes on")
    return steps


def spent_on(job: Job, work: Path) -> float:
    """CPU minutes of all runs of a training."""
    rows = map(json.loads, (work / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return round(sum(row["cpu_minutes"] for row in rows if row["name"] == job.name), 1)


def merged(rows: Sequence[dict], groups: Sequence[Sequence[str]], name: str) -> dict:
    """One row in which every song is judged by the network that left it out."""
    scores = [None] * len(groups)
    for row in rows:
        for k, score in enumerate(row["scores"]):
            if score is not None and scores[k] is not None:
                raise ValueError(f"two folds judge {groups[k][0]}; keep one")
            scores[k] = score if score is not None else scores[k]
    have = [s for s in scores if s is not None]
    low, high = interval(scores, groups)
    parts = {n: sum(r["parts"][n] for r in rows) / len(rows) for n in rows[0]["parts"]}
    row = rows[0] | {"system": f"{name}, one song left out", "fold": "each", "scores": scores}
    row |= {"score": round(sum(have) / len(have), 3), "low": low and round(low, 3)}
    row |= {"high": high and round(high, 3), "items": len(have), "groups": len(have)}
    return row | {"parts": {n: round(v, 2) for n, v in parts.items()}}


def score(job: Job, steps: int, sets: dict, work: Path, sounds: Path, out: Path) -> None:
    """Measure a network on every set that fits, and keep its rows."""
    title, name = "Every system with the same budget", NAMES[job.config.stem]
    system = network(job.weights(work), "equal budget", sets, name)
    real = {item.groups[0] for item in sets["songs"].items} if not job.speech else set()
    system.seen = frozenset(real - {job.fold}) if job.fold else frozenset()
    system.about |= {"model": None, "minutes": spent_on(job, work)}
    for which in system.sets:
        one = sets[which]
        row = measure(system, one) | {"fold": job.fold, "steps": steps}
        corpus = "DATA/speech-train" if job.speech else sounds.name
        row["command"] = (
            f"sepbook train --config benchmarks/budget/{job.config.name} --data {corpus} "
            f"--steps {steps} --out {job.name}.safetensors"
        )
        if job.fold:
            row["system"] = f"{name}, without {job.fold}"
        keep(out, title, "python benchmarks/budget.py DATA --songs MADE --work WORK", row, one)
        print(which, row["system"], row["score"], flush=True)
    if job.fold:
        found = json.loads(out.read_text())
        rows = [
            r for r in found["rows"] if r["set"] == "songs" and r.get("fold") not in (None, "each")
        ]
        rows = [r for r in rows if r["system"].startswith(f"{name}, without")]
        if len(rows) == len(real):
            groups = found["sets"]["songs"]["groups"]
            keep(out, title, found["command"], merged(rows, groups, name), sets["songs"])


def main() -> None:
    """The queue."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the corpora")
    parser.add_argument("--songs", type=Path, help="made songs to train on; without, speech only")
    parser.add_argument("--work", type=Path, required=True, help="networks, checkpoints, log")
    parser.add_argument("--minutes", type=float, default=60.0, help="CPU minutes for each (60)")
    parser.add_argument("--only", nargs="*", help="names of configs")
    parser.add_argument("--fold", nargs="*", default=[], help="real songs to leave out, or all")
    parser.add_argument("--made", type=Path, help="made songs to judge on (DATA/made-unseen)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    configs = {p.stem: p for p in sorted((HERE / "budget").glob("*.toml"))}
    if unknown := sorted(set(args.only or ()) - set(configs)):
        sys.exit(f"no config {unknown[0]!r}; there are {', '.join(configs)}")
    sets = all_sets(args.data, args.made or args.data / "made-unseen")
    every = sorted({row["song"] for row in read_index(args.data / "music-stems")})
    folds = every if args.fold == ["all"] else args.fold
    if unknown := sorted(set(folds) - set(every)):
        sys.exit(f"no song {unknown[0]!r}; there are {', '.join(every)}")
    for name in args.only or configs:
        plain = Job(configs[name], None)
        if not plain.speech and args.songs is None:
            print(f"{name}: left out; give --songs, a corpus of made songs", flush=True)
            continue
        for fold in [None] if plain.speech or not folds else folds:
            job = Job(configs[name], fold)
            sounds = args.data / "speech-train"
            if not job.speech:
                sounds = songs_folder(args.data, args.songs, fold, args.work)
            steps = train(job, sounds, args.work, args.minutes, args.device)
            score(job, steps, sets, args.work, sounds, args.out)


if __name__ == "__main__":
    main()
