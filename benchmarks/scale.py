"""Shards against small files, memory, and several processes against one.

    python benchmarks/scale.py              writes results/scale.json

Reading: items of one second of two voices, as FLAC files and in shards, each set removed from the
cache of the operating system before it is read cold. Processes: PyTorch's launcher, gloo on CPUs.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from bench import figure, save
from safetensors.torch import load_file

from sepbook.scale import Shards, write_shards

COUNT, RATE = 4000, 8000
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

TRAIN = """
import sys
from safetensors.torch import save_file
import torch
from sepbook.learner import Learner
from sepbook.models import ConvTasNet
from sepbook.scale import Shards

folder, run, out, steps, world = sys.argv[1:]
torch.set_num_threads(1)
torch.manual_seed(0)
net = ConvTasNet(n_filters=32, bottleneck=16, hidden=32, skip=16, blocks=2, repeats=1)
train = Shards(folder, batch_size=8, streams=4, buffer=40)
learner = Learner(net, train, batch_size=8, shuffle=False, ema=0.9, folder=run)
assert learner.accelerator.num_processes == int(world)
learner.fit(steps=int(steps), progress=False)
if learner.accelerator.is_main_process:
    save_file(learner.model.state_dict(), out)
"""

MEMORY = """
import sys
import psutil
from sepbook.scale import Shards

data, now = Shards(sys.argv[1], batch_size=8, streams=4, buffer=64), psutil.Process().memory_info
data[0]
before = most = now().rss
for i in range(len(data)):
    data[i]
    if i % 20 == 0:
        most = max(most, now().rss)
print((most - before) / 1e6)
"""


def sources(count: int):
    """Noise in the shape of two voices: nothing that FLAC could make small."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield 0.1 * torch.randn(2, 1, RATE, generator=draw)


def forget(folder: Path) -> None:
    """Remove a folder's files from the cache of the operating system."""
    os.sync()
    for path in folder.iterdir():
        number = os.open(path, os.O_RDONLY)
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(number)


def reading(home: Path) -> list[dict]:
    """Items a second from small files in random order, and from shards in the order of Shards."""
    data = Shards(write_shards(sources(COUNT), home / "shards", RATE, COUNT // 8), 8, buffer=256)
    small = home / "files"
    small.mkdir()
    for k in range(COUNT):
        (small / f"{k:09}.flac").write_bytes(data.read(k))
    data.set_epoch(0)
    chance = np.random.default_rng(0).permutation(COUNT)
    ways = {
        "files": (small, lambda: [(small / f"{k:09}.flac").read_bytes() for k in chance]),
        "shards": (home / "shards", lambda: [data.read(k) for k in data.order]),
    }
    rows = []
    for name, (folder, run) in ways.items():
        for state in ("cold", "warm"):
            times = []
            for _ in range(3):
                if state == "cold":
                    forget(folder)
                began = time.perf_counter()
                got = run()
                times.append(time.perf_counter() - began)
            size = sum(map(len, got)) / 1e6
            rows.append(
                {
                    "how": f"{name}, {state}",
                    "items per s": round(len(got) / min(times)),
                    "MB per s": round(size / min(times)),
                }
            )
    return rows


def call(*words, world: int = 1) -> None:
    """Run Python in one process or in two."""
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    launch = TWO if world == 2 else []
    done = subprocess.run(
        [sys.executable, *launch, *map(str, words)], env=env, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])


def memory(home: Path) -> dict:
    """How much memory grows while all of a set is read: a small one, and one of ten times that."""
    found = {}
    for name, count in (("small", COUNT // 10), ("large", COUNT)):
        folder = write_shards(sources(count), home / name, RATE, 50)
        told = subprocess.run(
            [sys.executable, "-c", MEMORY, folder], stdout=subprocess.PIPE, text=True, check=True
        )
        size = sum(p.stat().st_size for p in folder.glob("*.tar")) / 1e6
        found |= {f"{name} set on disk, MB": round(size)}
        found |= {f"{name} set, growth while it is read, MB": round(float(told.stdout), 1)}
    return found


def difference(a: Path, b: Path) -> float:
    """The largest difference of a weight between two files."""
    one, two = load_file(a), load_file(b)
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def from_shards(home: Path, steps: int = 12) -> dict:
    """How far trainings with other numbers of processes are from one with a single process."""
    (script := home / "train.py").write_text(TRAIN)
    folder = write_shards(sources(240), home / "train", RATE, 20)
    out = {name: home / f"{name}.safetensors" for name in ("one", "two", "half", "on")}
    call(script, folder, home / "run1", out["one"], steps, 1)
    call(script, folder, home / "run2", out["two"], steps, 2, world=2)
    call(script, folder, home / "run3", out["half"], steps // 2, 2, world=2)
    call(script, folder, home / "run3", out["on"], steps, 1)
    return {
        "shards: two processes against one": difference(out["one"], out["two"]),
        "shards: two processes, then one goes on": difference(out["one"], out["on"]),
    }


def by_command(home: Path) -> dict:
    """The same for the command."""
    train = ["-m", "sepbook", "train", "--model", "ConvTasNet", "--data", "example", "--quiet"]
    train += ["--size", 32, "--valid-size", 8, "--seconds", 1, "--valid-seconds", 1, "--device"]
    train += ["cpu", "--batch-size", 8, "--steps", 8]
    for word in ("n_filters=32", "bottleneck=16", "hidden=32", "skip=16", "blocks=2", "repeats=1"):
        train += ["--set", word]
    out = [home / f"command{world}.safetensors" for world in (1, 2)]
    for path, world in zip(out, (1, 2)):
        call(*train, "--out", path, world=world)
    return {"sepbook train: two processes against one": difference(*out)}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        rows = reading(home)
        told = {
            "reading": rows,
            "memory": memory(home),
            "processes": from_shards(home) | by_command(home),
        }
    print(json.dumps(told, indent=1))
    by = {row["how"]: row["items per s"] for row in rows}
    grown = told["memory"]["large set, growth while it is read, MB"]
    worst = max(told["processes"].values())
    save(
        "Scale: shards against small files, memory, several processes against one",
        [
            figure(
                "items read from shards over items read from small files, cold cache",
                round(by["shards, cold"] / by["files, cold"], 1),
                "x",
                "above 1",
            ),
            figure("growth of memory while a set of 4000 items is read", grown, "MB", "under 20"),
            figure(
                "trainings with 2 processes, and with 2 and then 1, against one: "
                "largest difference of a weight",
                worst,
                "",
                "at most 1e-5",
            ),
        ],
        "python benchmarks/scale.py",
        f"{os.cpu_count()} CPU cores",
        **told,
        note="items of 1 s of two voices at 8 kHz (noise); on a machine that others used",
    )


if __name__ == "__main__":
    main()
