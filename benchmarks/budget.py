"""One budget for every system: train each config of benchmarks/budget, and score it.

    python benchmarks/budget.py DATA --songs MADE --work WORK              all, 60 minutes each
    python benchmarks/budget.py DATA --work WORK --only dprnn --steps 4800    one, as its file says
    python benchmarks/budget.py DATA --songs MADE --work WORK --only unet --fold all
    python benchmarks/budget.py --work WORK --collect       files of all that are trained and scored

DATA is as for benchmarks/leaderboard.py, MADE a corpus of made songs to train on
(`python -m sepbook.songs MADE --count 300 --voices SPEECH`). Networks, checkpoints and scores go to
WORK: the same command goes on where it stopped, and WORK/log.jsonl tells what ran when. Whatever is
trained and scored has a file in results/race, with the clips that chapters play.

A budget is CPU minutes on one core: a dozen steps are timed first, and the training has as many
steps as fit; `--steps` gives their number instead, to repeat a training. Music networks
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
from leaderboard import (  # noqa: E402
    HERE,
    all_sets,
    at_rate,
    in_order,
    keep,
    measure,
    network,
    through_separate,
)

from sepbook.engine.corpora import read_index  # noqa: E402
from sepbook.engine.experiments import (  # noqa: E402  # noqa: E402
    Lessons,
    Mixing,
    Net,
    Training,
    data_sets,
    named_class,
    network_to_train,
    read_config,
)
from sepbook.engine.race import (  # noqa: E402
    ENTRANTS,
    how_to_train,
    race_excerpt,
    thinned,
    write_run,
)
from sepbook.engine.training import read_rows  # noqa: E402
from sepbook.leaderboard import interval  # noqa: E402
from sepbook.learner import Learner  # noqa: E402
from sepbook.metrics import si_sdr  # noqa: E402
from sepbook.zoo import load, read_card  # noqa: E402

RACE = HERE.parent / "results" / "race"


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
        return ENTRANTS[self.config.stem].track == "speech"

    @property
    def cls(self) -> type | None:
        """The class of a network that is not part of sepbook."""
        model = read_config(self.config)[0]["model"]
        return named_class(model) if ":" in model else None

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


def train(
    job: Job, sounds: Path, work: Path, minutes: float, device: str, steps: int | None = None
) -> int:
    """Train a network, or go on; return its number of steps."""
    plan = work / f"{job.name}.json"
    if not plan.exists():
        told = {"steps": steps or steps_for(job, sounds, minutes, device), "minutes": minutes}
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
    """CPU minutes of a training.

    A run that was killed together with this script is not in the log; the training's own clock
    counts it, and the runs that are in the log tell how much of a minute is the processor's.
    """
    rows = [row for row in read_rows(work / "log.jsonl") if row["name"] == job.name]
    if not rows:
        sys.exit(f"{job.name}: {work.name}/log.jsonl does not tell of it; train it here")
    spent = sum(row["cpu_minutes"] for row in rows)
    when = lambda row, end: datetime.fromisoformat(row[end])
    told = sum((when(row, "ended") - when(row, "started")).total_seconds() for row in rows) / 60
    own = read_rows(work / f"run-{job.name}" / "log.jsonl")
    clock = own[-1]["seconds"] / 60 if own else told
    return round(spent * max(1.0, clock / max(told, 1 / 60)), 1)


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


def score(job: Job, steps: int, sets: dict, work: Path, out: Path) -> None:
    """Measure a network on every set that fits, and keep its rows."""
    title, entrant = "Every system with the same budget", ENTRANTS[job.config.stem]
    name, chapter = entrant.system, entrant.chapter
    system = network(job.weights(work), entrant.kind, sets, name, job.cls)
    system.chapter = chapter
    real = {item.groups[0] for item in sets["songs"].items} if not job.speech else set()
    system.seen = frozenset(real - {job.fold}) if job.fold else frozenset()
    system.about |= {"model": None, "minutes": spent_on(job, work)}
    for which in system.sets:
        one = sets[which]
        row = measure(system, one) | {"fold": job.fold, "steps": steps}
        fold = f" --fold {job.fold}" if job.fold else ""
        row["command"] = how_to_train(job.config.stem, steps) + fold
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


def estimates(model: torch.nn.Module, track: str) -> dict[str, torch.Tensor]:
    """What a network makes of the four seconds of its track, voices in their best order."""
    heard = race_excerpt(track)
    whole = through_separate if getattr(model, "segment", None) else at_rate
    est = whole(model, heard.mix, heard.sample_rate)
    est = {n: torch.as_tensor(wav).reshape(1, -1) for n, wav in est.items()}
    if track == "speech":
        return dict(zip(heard.sources, in_order(torch.stack([*est.values()]), heard.src)))
    rest = sum(wav for n, wav in est.items() if n not in ("vocals", "drums"))
    return {"vocals": est["vocals"], "drums": est["drums"], "other": rest}


def collect(job: Job, work: Path, scores: Path, folder: Path) -> Path | None:
    """Write the file of a network that is trained and scored; None if it is not.

    The rows of its folds come along; all else is of the network without real songs.
    """
    name, entrant = job.config.stem, ENTRANTS[job.config.stem]
    found = json.loads(scores.read_text(encoding="utf-8")) if scores.exists() else {"rows": []}
    own = lambda r: r["system"] == entrant.system or r["system"].startswith(f"{entrant.system}, ")
    rows = [row for row in found["rows"] if own(row)]
    plain = {row["set"]: row for row in rows if not row.get("fold")}
    if not plain or not job.weights(work).exists():
        return None
    card, minutes = read_card(str(job.weights(work))), spent_on(job, work)
    for row in plain.values():
        row |= {"minutes": minutes, "kind": entrant.kind, "chapter": entrant.chapter}
        row["command"] = how_to_train(name, card["steps"])
    keys = ("data", "parameters", "steps", "best_step", "epochs", "batch_size", "lr", "schedule")
    keys += ("warmup", "ema", "clip", "seed", "hours", "date", "licence", "attribution", "versions")
    training = {key: card[key] for key in keys if key in card}
    corpus = "DATA/speech-train" if job.speech else "WORK/songs-made"
    training["command"] = (
        f"sepbook train --config benchmarks/budget/{job.config.name} --data {corpus} "
        f"--steps {card['steps']} --out {name}.safetensors"
    )
    size = round(job.weights(work).stat().st_size / 1e6, 2)
    training |= {"minutes": minutes, "megabytes": size}
    training["seconds"] = card["experiment"]["mixing"]["seconds"]
    heard, model = race_excerpt(entrant.track), load(str(job.weights(work)), cls=job.cls).eval()
    est = estimates(model, entrant.track)
    scored = lambda wav, src: round(float(si_sdr(wav, src).mean()), 3)
    targets = dict(zip(heard.sources, heard.src))
    excerpt = {
        "mixture": {n: scored(heard.mix, src) for n, src in targets.items()},
        "estimate": {n: scored(est[n], src) for n, src in targets.items()},
    }
    told = {"title": f"{entrant.system}: {minutes:.0f} CPU minutes on one core"}
    told |= {"command": how_to_train(name, card["steps"]), "device": "one CPU core"}
    told |= {"date": next(iter(plain.values()))["date"], "training": training}
    lines = [(f"{entrant.system}, {n}", row["score"]) for n, row in plain.items()]
    told["headline"] = [{"what": w, "value": v, "unit": "dB", "bar": ""} for w, v in lines]
    told["curve"] = thinned(read_rows(work / f"run-{job.name}" / "log.jsonl"), minutes)
    told |= {"excerpt": excerpt, "rows": rows}
    told["sets"] = {n: about for n, about in found["sets"].items() if n in plain}
    return write_run(folder, name, told, est)


def main() -> None:
    """The queue."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", help="folder of the corpora")
    parser.add_argument("--songs", type=Path, help="made songs to train on; without, speech only")
    parser.add_argument("--work", type=Path, required=True, help="networks, checkpoints, log")
    parser.add_argument("--minutes", type=float, default=60.0, help="CPU minutes for each (60)")
    parser.add_argument("--steps", type=int, help="in place of minutes, with --only one config")
    parser.add_argument("--collect", action="store_true", help="train nothing; write what is there")
    parser.add_argument("--only", nargs="*", help="names of configs")
    parser.add_argument("--fold", nargs="*", default=[], help="real songs to leave out, or all")
    parser.add_argument("--made", type=Path, help="made songs to judge on (DATA/made-unseen)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="file of all scores (WORK/budget.json)")
    parser.add_argument("--race", type=Path, default=RACE, help="of the files (results/race)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out = args.out or args.work / "budget.json"
    for word, path in list(vars(args).items()):
        if isinstance(path, Path):
            setattr(args, word, path.resolve())
    os.chdir(HERE.parent)  # the control's config names a file of this repository
    configs = {p.stem: p for p in sorted((HERE / "budget").glob("*.toml"))}
    if unknown := sorted(set(args.only or ()) - set(configs)):
        sys.exit(f"no config {unknown[0]!r}; there are {', '.join(configs)}")
    if args.steps and len(args.only or ()) != 1:
        sys.exit("--steps is the number of one training; give --only NAME")
    if args.collect:
        for name in args.only or configs:
            if path := collect(Job(configs[name], None), args.work, args.out, args.race):
                print(path.relative_to(args.race.parent), flush=True)
        return
    if args.data is None:
        sys.exit("give DATA, the folder of the corpora, or --collect")
    args.work.mkdir(parents=True, exist_ok=True)
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
            steps = train(job, sounds, args.work, args.minutes, args.device, args.steps)
            score(job, steps, sets, args.work, args.out)
        collect(plain, args.work, args.out, args.race)


if __name__ == "__main__":
    main()
