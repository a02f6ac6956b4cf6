"""Which networks leave PyTorch, and how exactly? Each as an ONNX file, run in ONNX Runtime.

Run as `python benchmarks/onnx_export.py`; it writes results/onnx_export.json. Small networks of
every class with random weights, and the models that ship. Names as arguments measure only those,
and keep the rest of the file.
"""

import json
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "onnx_export.json"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "robustness")]

from test_networks import SMALL, build  # noqa: E402

from sepbook.engine.export import export  # noqa: E402
from sepbook.zoo import available, load  # noqa: E402


def measure(name: str, folder: Path) -> dict:
    """One row of the table: how a network comes out, or why it doesn't."""
    shipped = name not in SMALL
    network = load(name) if shipped else build(name)
    row = {"network": name, "parameters": network.n_params, "ships": shipped}
    started = time.perf_counter()
    try:
        got = export(network.eval(), folder / f"{name}.onnx", 1.0)
    except RuntimeError as error:
        return row | {"exports": False, "why": str(error)}
    return row | {
        "exports": True,
        "any length": got.dynamic,
        "largest difference": float(f"{got.difference:.1e}"),
        "why": got.why,
        "kilobytes": round(got.path.stat().st_size / 1000),
        "seconds": round(time.perf_counter() - started),
    }


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:] or [*SMALL, *available()]
    rows = {}
    if RESULT.exists() and sys.argv[1:]:
        rows = {row["network"]: row for row in json.loads(RESULT.read_text())["networks"]}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = measure(name, Path(folder))
        print(rows[name], flush=True)
        write(list(rows.values()))


def write(rows: list[dict]) -> None:
    """The file of results."""
    done = [row for row in rows if row["exports"]]
    worst = max((row["largest difference"] for row in done), default=0.0)
    headline = [
        ("networks as ONNX files, of those tried", f"{len(done)} of {len(rows)}", "", ""),
        ("the same: for recordings of any length", sum(r["any length"] for r in done), "", ""),
        ("the same: largest difference, of the largest output", worst, "", "<= 1e-4"),
    ]
    keys = ("what", "value", "unit", "bar")
    table = {
        "title": "Networks as ONNX files, in ONNX Runtime against PyTorch",
        "command": "python benchmarks/onnx_export.py",
        "date": str(date.today()),
        "device": "CPU",
        "headline": [dict(zip(keys, row)) for row in headline],
        "networks": rows,
    }
    RESULT.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
