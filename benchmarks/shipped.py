"""The models that ship, on sounds that they have never heard.

    python benchmarks/shipped.py DATA                  writes results/shipped.json
    python benchmarks/shipped.py DATA --only upit-2voices    these rows anew

DATA holds the corpora `speech-train`, `music-stems` and `noise`. Every figure stands beside the
command that printed it: on the readers or the song that were kept apart from training (by `sepbook
evaluate --as-card`, which also stops if the figure is not that on the card), and on the packaged
voices, which no model was trained on. A denoiser is measured by the leaderboard's noisy speech, and
a music model on the packaged song by this script.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench import ROOT, figure, save
from leaderboard import earlier_network

from sepbook.metrics import evaluate
from sepbook.mixtures import Mixture, example_song
from sepbook.zoo import available, load, read_card

OUT = ROOT / "results" / "shipped.json"


def commands(name: str) -> dict[str, str | None]:
    """How the figures of a model are measured."""
    card = read_card(name)
    if "noise" in card["sources"]:
        line = f'python benchmarks/leaderboard.py DATA --sets "noisy speech" --systems {name}'
        return {"kept apart": line, "packaged": None}
    if "evaluation" not in card:  # its stems are not those of the songs kept apart: chapter 82
        return {"kept apart": None, "packaged": f"python benchmarks/shipped.py DATA --only {name}"}
    songs = card["evaluation"]["songs"]
    line, data = (
        f"sepbook evaluate --model {name} --data",
        "music-stems" if songs else "speech-train",
    )
    packaged = f"{line} example --size 100"
    if songs:
        packaged = f"python benchmarks/shipped.py DATA --only {name}"
    return {"kept apart": f"{line} DATA/{data} --as-card", "packaged": packaged}


def measured(line: str, data: Path) -> dict[str, float]:
    """Run a command, and return what it found: by source and metric."""
    if "shipped.py" in line:
        return {"all si_sdri": song(line.rpartition(" ")[2])}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        words = [w.strip('"') for w in line.replace('"noisy speech"', '"noisy\0speech"').split(" ")]
        words = [w.replace("\0", " ").replace("DATA", str(data)) for w in words]
        python = (
            [sys.executable, "-m", "sepbook.cli"] if words[0] == "sepbook" else [sys.executable]
        )
        more = ["--quiet"] if words[0] == "sepbook" else []
        subprocess.run([*python, *words[1:], *more, "--out", str(out)], cwd=ROOT, check=True)
        found = json.loads(out.read_text(encoding="utf-8"))
    if isinstance(found, dict):
        return {"all si_sdri": found["rows"][0]["score"]}
    return {f"{r['source']} {r['metric']}": r["mean"] for r in found} | {
        f"{r['source']} {r['metric']} ±": r["ci"] for r in found
    }


def song(name: str) -> float:
    """SI-SDR gain on the packaged song in seconds 0 to 2, 2 to 4 and 4 to 6."""
    model = load(name).eval()
    whole = example_song(model.sample_rate, mono=model.channels == 1)
    stems = dict(zip(whole.sources, whole.src))
    rest = [stems[name] for name in stems if name not in model.sources]  # counts as other
    src = torch.stack([stems[n] + (sum(rest) if n == "other" else 0) for n in model.sources])
    parts = src.split(2 * model.sample_rate, -1)
    test = [Mixture(part.sum(0), part, model.sources, model.sample_rate) for part in parts]
    gain = evaluate(model, test, ("si_sdri",), sample_rate=model.sample_rate)["si_sdri"]
    return float(gain.mean())


def seconds_per_minute(model) -> float:
    """How long a minute of noise takes, as one mixture of four seconds after the other."""
    mix = 0.1 * torch.randn(1, model.channels, 4 * model.sample_rate)
    with torch.no_grad():
        model(mix)
        started = time.process_time()
        for _ in range(15):
            model(mix)
    return time.process_time() - started


def row(name: str, data: Path) -> dict:
    """One model: what it is, what it cost, what it gains, and how fast it is."""
    model, card, lines = load(name).eval(), read_card(name), commands(name)
    size = (ROOT / "sepbook/weights" / f"{name}.safetensors").stat().st_size
    apart = measured(lines["kept apart"], data) if lines["kept apart"] else {}
    packaged = measured(lines["packaged"], data) if lines["packaged"] else {}
    two = lambda value: None if value is None else round(value, 2)
    return {
        "model": name,
        "sources": ", ".join(model.sources),
        "parameters": sum(p.numel() for p in model.parameters()),
        "megabytes": round(size / 1e6, 2),
        "trained on": card.get("data"),
        "minutes": round(((card.get("seconds_trained") or 0) + earlier_network(card)) / 60, 1),
        "device": card.get("device"),
        "seed": card.get("seed"),
        "kept apart: SI-SDR gain": two(apart.get("all si_sdri")),
        "packaged: SI-SDR gain": two(packaged.get("all si_sdri")),
        "seconds per minute of audio": round(seconds_per_minute(model), 2),
        "commands": lines,
        "stems": {
            stem: [two(apart[f"{stem} sdri"]), round(apart[f"{stem} sdri ±"], 3)]
            for stem in model.sources
            if f"{stem} sdri" in apart
        },
    }


def headline(r: dict) -> list[dict]:
    """What the home page may say of a model."""
    kind = "packaged" if r["kept apart: SI-SDR gain"] is None else "kept apart"
    told = [(f"{r['model']}: SI-SDR gain on sounds {kind}", r[f"{kind}: SI-SDR gain"], "")]
    for stem, (gain, ci) in r["stems"].items():
        told.append((f"the same: SDR gain of the {stem} (± {ci:.1f} dB)", gain, "above 0"))
    return [figure(what, value, "dB", bar) for what, value, bar in told]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the corpora")
    parser.add_argument("--only", nargs="*", help="names of models; other rows stay as they are")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = list(available().index)
    if unknown := sorted(set(args.only or ()) - set(names)):
        sys.exit(f"no model {unknown[0]!r}; there are {', '.join(names)}")
    rows = {r["model"]: r for r in json.loads(OUT.read_text())["rows"]} if args.only else {}
    for name in args.only or names:
        rows[name] = row(name, args.data.resolve())
        print(*[v for v in rows[name].values() if not isinstance(v, dict)], sep="\t", flush=True)
    rows = [rows[name] for name in names if name in rows]
    save(
        "The models that ship: SI-SDR gain on sounds unseen in training",
        [told for r in rows if "stems" in r for told in headline(r)],
        "python benchmarks/shipped.py DATA",
        "one CPU core",
        mixtures="each row has the commands that repeat its figures",
        rows=rows,
    )


if __name__ == "__main__":
    main()
