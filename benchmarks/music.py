"""The music systems side by side: each trained alike, small, and for the same minutes.

    python benchmarks/music.py MUSIC            writes results/music.json, 90 minutes
    python benchmarks/music.py MUSIC --quick    a few steps each, writes nothing

MUSIC is a folder of stems, vocals, drums and other, with index.csv (chapter 5); the song KEPT is
for testing only. Each system learns with `sepbook train` from the others, on one core, for
`--minutes`; all see the same data in the same order. `--folder` keeps the networks: what is there
isn't trained again. SDR, SIR and SAR are means over 30 segments of 4 s of the kept song, and over
three of 2 s of the packaged song; the mixture itself is the first row. Time and memory: one minute
of stereo at 44.1 kHz through `separate`, in a process of its own, two threads.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from bench import figure, peak_gb, save
from shipped import song

from sepbook.metrics import evaluate, summarize
from sepbook.mixtures import Corpus, MixtureDataset
from sepbook.separate import separate
from sepbook.zoo import load

RATE, KEPT, STEMS, TEST = 22050, "2.Lithium", ("vocals", "drums", "other"), 30
PICTURE = {"sample_rate": RATE, "channels": 1, "n_fft": 2048, "hop": 512}
WAVE = {"sample_rate": RATE, "channels": 1}
WIDTHS = "8,16,32,64,96,128"
BANDS = PICTURE | {"trunk": "shared", "bands": "small", "level": True, "recompute": False}
BANDS |= {"features": 48, "hidden": 48, "blocks": 3, "mask_hidden": 96}
SYSTEMS = {
    "Open-Unmix": ("OpenUnmix", PICTURE | {"hidden": 128, "bandwidth": 11000, "softmask": True}),
    "U-Net": ("UNet", PICTURE | {"n_bins": 1024, "widths": WIDTHS, "dropout": 0.2}),
    "Spleeter": ("Spleeter", PICTURE | {"n_bins": 1024, "widths": WIDTHS, "dropout": 0.2}),
    "Wave-U-Net": ("WaveUNet", WAVE | {"levels": 8, "filters": 16}),
    "Demucs": ("Demucs", WAVE | {"hidden": 16, "depth": 5, "resample": False}),
    "Hybrid Demucs": ("HDemucs", WAVE | {"hidden": 12, "depth": 5, "n_fft": 2048}),
    "HT Demucs": ("HTDemucs", WAVE | {"hidden": 16, "n_fft": 2048, "bottom": 64, "layers": 2}),
    "BSRNN": ("BSRNN", BANDS | {"objective": "snr", "consistent": True}),
}  # class, and arguments that bring it to a size that one core trains
HOW = "--seconds 3 --size 600 --remix 0.8 --levels 12 --speed 0.1 --batch-size 4 --warmup 50 "
HOW += "--schedule cosine --ema 0.998 --seed 0 --dtype float16 --valid-size 100"


def train(name: str, music: str, out: Path, goal: str) -> None:
    """Train a system with the command that a reader would type."""
    cls, settings = SYSTEMS[name]
    told = settings | {"sources": ",".join(STEMS)}
    command = ["sepbook", "train", "--model", cls, "--data", music, "--valid-songs", KEPT]
    command += [word for key, value in told.items() for word in ("--set", f"{key}={value}")]
    command += [*HOW.split(), *goal.split(), "--lr", "2e-3" if "BSRNN" in cls else "1e-3"]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command += ["--out", str(out), "--folder", str(out.with_suffix("")), "--quiet"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(command, check=True, env=os.environ | threads | {"PATH": path})


def child(path: str) -> None:
    """Separate a minute, and print what it took."""
    torch.set_num_threads(2)
    mix = 0.1 * torch.randn(2, 60 * 44100)
    model = load(path)
    started = time.perf_counter()
    separate(model, mix, 44100, progress=False)
    spent = time.perf_counter() - started
    print(json.dumps({"seconds per minute": round(spent, 1), "peak GB": peak_gb()}))


def scores(separator, items) -> dict:
    """Mean SDR, SIR and SAR of each stem, and half the width of their confidence intervals."""
    table = summarize(evaluate(separator, items, ("sdr", "sdri"), sample_rate=RATE))
    told = table[table.source != "all"].itertuples()
    return {f"{r.source} {r.metric}": [round(r.mean, 2), round(r.ci, 2)] for r in told}


def row(name: str, path: Path, kept) -> dict:
    """What a trained system is, what it cost, and what it gains."""
    model = load(path).eval()
    out = subprocess.run(
        [sys.executable, __file__, "--child", str(path)], capture_output=True, text=True, check=True
    ).stdout
    told = {"system": name, "parameters": model.n_params, "steps": model.card["steps"]}
    told |= {"minutes": round(model.card["seconds_trained"] / 60, 1)}
    told |= json.loads(out.splitlines()[-1])
    return told | {"kept": scores(model, kept), "packaged": scores(model, song(model))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("music", nargs="?")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", help="one of the systems")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child)
    folder = args.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    goal = "--steps 2 --size 8 --valid-size 4" if args.quick else f"--minutes {args.minutes:g}"
    paths = {}
    for name in [args.only] if args.only else SYSTEMS:
        paths[name] = folder / f"{name.lower().replace(' ', '-')}.safetensors"
        if not paths[name].exists():
            train(name, args.music, paths[name], goal)
        print(name, "trained", flush=True)
    corpus = Corpus(args.music, RATE, 1).subset(lambda r: r["song"] == KEPT)
    data = MixtureDataset(corpus, seconds=4.0, size=4 if args.quick else TEST)
    order = [data.sources.index(stem) for stem in STEMS]
    kept = [(mix, src[order]) for mix, src, *_ in (data[i] for i in range(data.size))]
    bare = lambda mix: mix[:, None].expand(-1, 3, -1, -1)
    bare.sources, bare.sample_rate, bare.channels = STEMS, RATE, 1
    both = {"kept": scores(bare, kept), "packaged": scores(bare, song(bare))}
    rows = [{"system": "the mixture"} | both]
    for name, path in paths.items():
        rows.append(row(name, path, kept))
        print(rows[-1], flush=True)
    table = pd.DataFrame([r | r["kept"] for r in rows]).drop(columns=["kept", "packaged"])
    print(table.to_string())
    if args.quick or args.only:
        return
    best = max(rows[1:], key=lambda r: sum(r["kept"][f"{s} sdri"][0] for s in STEMS))
    gain = lambda stem: best["kept"][f"{stem} sdri"][0]
    what = f"{best['system']}: SDR gain on the song kept apart, "
    save(
        f"Music systems, each trained for {args.minutes:g} minutes on one core",
        [figure(what + stem, gain(stem), "dB") for stem in STEMS],
        f"python benchmarks/music.py MUSIC --minutes {args.minutes:g}",
        "1 CPU core for training, 2 for separating",
        **{"kept apart": KEPT, "rows": rows},
    )


if __name__ == "__main__":
    main()
