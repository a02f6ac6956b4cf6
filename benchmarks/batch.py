"""200 recordings, two workers, one of them killed with kill -9 in the middle of a recording.

    python benchmarks/batch.py              writes results/batch.json

The same without an accident, with one worker, by two calls that know nothing of each other, and,
with --ray, by Ray Data, too. The network is tiny: what is measured is what surrounds it.

    python benchmarks/batch.py --calls      only the two calls; the other rows stay as they are
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from bench import figure, save

from sepbook.engine.batches import HOME, separate_folder
from sepbook.engine.files import load
from sepbook.engine.files import save as save_wav
from sepbook.engine.weights import save as save_model
from sepbook.models import ConvTasNet

COUNT, RATE, SECONDS = 200, 8000, 2.0
CALLS, LEASE = "two calls, one killed", 5.0  # s
RECORD = Path(__file__).resolve().parents[1] / "results" / "batch.json"

CALL = """
import sys
from sepbook.engine.batches import separate_folder

def tell(event):
    if event["event"] == "begin":
        print(event["item"], flush=True)

model, folder, out, lease = sys.argv[1:]
separate_folder(model, folder, out, workers=0, lease=float(lease), on_event=tell)
"""


def collect(folder: Path) -> list[str]:
    """Write the recordings."""
    draw, names = torch.Generator().manual_seed(0), [f"{k % 8}/{k:03}.wav" for k in range(COUNT)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_wav(folder / name, 0.1 * torch.randn(1, int(SECONDS * RATE), generator=draw), RATE)
    return sorted(names)


def make_model(path: Path) -> Path:
    """The file of a tiny network."""
    torch.manual_seed(0)
    how = dict(n_filters=16, bottleneck=8, hidden=8, skip=8, blocks=1, repeats=1)
    save_model(ConvTasNet(**how), path, {"data": "none", "licence": "CC0-1.0"})
    return path


def count(out: Path, names: list[str]) -> dict:
    """How many results are whole, and how many recordings were published more than once."""
    whole, logs = 0, out.glob(f"{HOME}/log/*.jsonl")
    made = [json.loads(line)["item"] for p in logs for line in p.read_text().splitlines()]
    for name in names:
        stems = [out / name / f"s{k}.wav" for k in (1, 2)]
        lengths = [load(p)[0].shape[-1] for p in stems if p.is_file()]
        whole += lengths == [int(SECONDS * RATE)] * 2
    extra = len([p for p in out.rglob("*.wav") if p.is_file()]) - 2 * len(names)
    return {"whole": whole, "made twice": len(made) - len(set(made)), "other files": extra}


def row(home: Path, name: str, kill: int | None = None, **how) -> dict:
    """One batch: what came out and what it took; whoever begins recording number `kill` dies."""
    names = sorted(p.relative_to(home / "in").as_posix() for p in home.glob("in/*/*"))
    began, killed = [], []

    def watch(event: dict) -> None:
        if "pid" in event:  # of a worker that begins; of an actor of Ray that has done one
            began.append(event)
            if len(began) == kill:
                os.kill(event["pid"], signal.SIGKILL)
                killed.append(event)

    out, started = home / name, time.perf_counter()
    separate_folder(home / "tiny.safetensors", home / "in", out, on_event=watch, **how)
    took = round(time.perf_counter() - started, 1)
    told = {"batch": name, "workers killed": len(killed), "seconds": took}
    return told | count(out, names)


def calls(home: Path, kill: int) -> dict:
    """Two calls without a common parent; when the first begins its `kill`-th, it dies."""
    names = sorted(p.relative_to(home / "in").as_posix() for p in home.glob("in/*/*"))
    out, started = home / CALLS, time.perf_counter()
    words = [sys.executable, "-c", CALL, home / "tiny.safetensors", home / "in", out, str(LEASE)]
    first, second = (subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2))
    for _ in range(kill):
        last = first.stdout.readline().strip()
    first.kill()
    said = second.communicate()[0].split()
    if first.wait() != -signal.SIGKILL or second.returncode:
        raise RuntimeError("the first call was not killed, or the second one has failed")
    if last not in said:
        raise RuntimeError("the first call was killed too late; nothing was left to take over")
    took = round(time.perf_counter() - started, 1)
    return {"batch": CALLS, "workers killed": 1, "seconds": took} | count(out, names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ray", action="store_true", help="with Ray, too")
    parser.add_argument("--calls", action="store_true", help="two calls only; keep the other rows")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        collect(home / "in"), make_model(home / "tiny.safetensors")
        if args.calls:
            rows = [r for r in json.loads(RECORD.read_text())["rows"] if r["batch"] != CALLS]
        else:
            rows = [
                row(home, "one worker", workers=1),
                row(home, "two workers", workers=2),
                row(home, "two workers, one killed", kill=COUNT // 2, workers=2, lease=600),
            ]
            if args.ray and find_spec("ray"):
                how = dict(workers=2, engine="ray", kill=COUNT // 4)
                rows.append(row(home, "Ray Data, two actors, one killed", **how))
        rows.insert(3, calls(home, COUNT // 4))
    for line in rows:
        print(*line.items(), sep="\t")
    killed, apart = rows[2:4]
    what = f"{COUNT} recordings, two workers, one killed with kill -9"
    same = f"the same, two calls without a common parent, a lease of {LEASE:.0f} s"
    save(
        "Batches: many recordings, many workers, one of them killed",
        [
            figure(f"{what}: whole results", killed["whole"], "", f"{COUNT}"),
            figure(f"{what}: made twice", killed["made twice"], "", "0"),
            figure("the same: files that are no results", killed["other files"], "", "0"),
            figure(f"{same}: whole results", apart["whole"], "", f"{COUNT}"),
            figure(f"{same}: made twice", apart["made twice"], "", "0"),
        ],
        "python benchmarks/batch.py" + " --ray" * (len(rows) > 4),
        f"{os.cpu_count()} CPU cores",
        rows=rows,
        note="recordings of 2 s at 8 kHz and a tiny network; seconds on a machine that others used",
    )


if __name__ == "__main__":
    main()
