"""Execute notebooks from top to bottom, store their outputs and write down what they cost.

    python tools/notebooks.py run 01            a chapter and its solutions, by number or by path
    python tools/notebooks.py run --all         every notebook, in the order of the course
    python tools/notebooks.py run --no-stamp 01 leave the "runs on" line of the title cell alone
    python tools/notebooks.py clean --all       drop metadata; the outputs and their order stay

A notebook runs in its own folder with this Python; an error stops it, and nothing is stored.
"""

import argparse
import re
import sys
import threading
from pathlib import Path

import nbformat
import psutil
from jupyter_client import KernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"


def chapters() -> list[Path]:
    """Every notebook in reading order: the chapters, their solutions, then the home page."""
    found = [p for p in NBS.rglob("*.ipynb") if not {".ipynb_checkpoints", "_proc"} & set(p.parts)]
    key = lambda p: (p.parent == NBS, "solutions" in p.parts, str(p))
    return sorted(found, key=key)


def find(name: str) -> list[Path]:
    """The notebooks that `name` means: a path, or the start of a file name such as `02`."""
    if Path(name).suffix == ".ipynb":
        return [Path(name).resolve()]
    found = [p for p in chapters() if p.name.startswith(name)]
    if not found:
        sys.exit(
            f"no notebook starts with {name!r}; there are {', '.join(p.stem for p in chapters())}"
        )
    return found


class PeakMemory:
    """Peak resident memory of a process, sampled ten times a second while the context is open."""

    def __init__(self, pid: int):
        self.process, self.peak, self.stop = psutil.Process(pid), 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        while not self.stop.wait(0.1):
            try:
                family = [self.process, *self.process.children(recursive=True)]
                self.peak = max(self.peak, sum(p.memory_info().rss for p in family))
            except psutil.NoSuchProcess:
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def processor_seconds(process: psutil.Process) -> float:
    """Seconds that a process and its children have computed, on however busy a machine."""
    family = [process, *process.children(recursive=True)]
    return sum(sum(p.cpu_times()[:2]) for p in family) + sum(process.cpu_times()[2:4])


def execute(nb: nbformat.NotebookNode, folder: Path) -> tuple[float, float]:
    """Run `nb` in place; return processor seconds and peak memory in MB. Raises on an error."""
    manager = KernelManager(kernel_name="python3")
    client = NotebookClient(
        nb, km=manager, timeout=600, resources={"metadata": {"path": str(folder)}}
    )
    with (
        client.setup_kernel(cwd=str(folder)),
        PeakMemory(manager.provisioner.process.pid) as memory,
    ):
        for index, cell in enumerate(nb.cells):
            client.execute_cell(cell, index, store_history=True)
        seconds = processor_seconds(memory.process)
    return seconds, memory.peak / 1e6


WIDGET = "application/vnd.jupyter.widget-view+json"
LIVE = "*Run this cell in JupyterLab to move its controls.*"


def joined(outputs: list) -> list:
    """Printed lines that reached us in several pieces, as one output."""
    kept = []
    for out in outputs:
        if out.output_type == "stream" and kept and kept[-1].get("name") == out.name:
            kept[-1].text += out.text
        else:
            kept.append(out)
    return kept


def tidy(nb: nbformat.NotebookNode) -> None:
    """Drop what no reader needs: timestamps, widgets without a kernel behind them."""
    nb.metadata = {
        "kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}
    }
    for cell in nb.cells:
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        cell.outputs = joined(cell.outputs)
        for out in cell.outputs:
            if "metadata" in out:
                out.metadata = {}
            if WIDGET in out.get("data", {}):
                out.data = {"text/markdown": LIVE, "text/plain": LIVE.strip("*")}


def stamp(nb: nbformat.NotebookNode, seconds: float, megabytes: float) -> None:
    """Write `- runs on: CPU n s, peak m MB (measured)` into the title cell."""
    line = f"- runs on: CPU {seconds:.0f} s, peak {megabytes:,.0f} MB (measured on two cores)"
    title = nb.cells[0]
    title.source = re.sub(r"^- runs on:.*$", line, title.source, flags=re.M)


def run(path: Path, stamped: bool) -> bool:
    """Execute one notebook and store its outputs; return whether it ran to its end."""
    nb = nbformat.read(path, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    try:
        seconds, megabytes = execute(nb, path.parent)
    except Exception as error:
        print(f"{path.name}: FAILED\n{error}", flush=True)
        return False
    if stamped:
        stamp(nb, seconds, megabytes)
    nbformat.write(nb, path)
    clean(path)
    size = path.stat().st_size / 1e3
    print(f"{path.name}: {seconds:.1f} s, peak {megabytes:.0f} MB, file {size:.0f} kB", flush=True)
    return True


def clean(path: Path) -> None:
    """Tidy a notebook that was saved by hand; outputs and execution counts stay."""
    nb = nbformat.read(path, as_version=4)
    tidy(nb)
    text = nbformat.writes(nb) + "\n"
    if text != path.read_text(encoding="utf-8"):
        path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "clean", "list"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--no-stamp", action="store_true")
    args = parser.parse_intermixed_args()
    paths = chapters() if args.all else [p for name in args.names for p in find(name)]
    if args.command == "list":
        print("\n".join(str(p.relative_to(ROOT)) for p in chapters()))
        return
    if not paths:
        sys.exit("name a chapter: make run-notebooks CHAPTER=02, or CHAPTER=all")
    if args.command == "clean":
        for path in paths:
            clean(path)
        return
    sys.exit(0 if all([run(p, not args.no_stamp) for p in paths]) else 1)


if __name__ == "__main__":
    main()
