"""What the tests know about the course: where its notebooks are and how to read them."""

import base64
import io
import json
import re
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"


def notebooks(folder: str = "") -> list[Path]:
    """Every notebook below nbs/`folder`, in reading order."""
    skip = {".ipynb_checkpoints", "_proc"}
    return sorted(p for p in (NBS / folder).rglob("*.ipynb") if not skip & set(p.parts))


def chapters() -> list[Path]:
    """Notebooks whose name starts with a number, outside the solutions: lessons, then engine."""
    return [p for p in notebooks() if re.match(r"\d\d", p.name) and "solutions" not in p.parts]


def lessons() -> list[Path]:
    """The chapters for someone who wants to understand source separation."""
    return [p for p in chapters() if p.parent.name != "7_engine"]


def engine() -> list[Path]:
    """The notebooks of the engine room, for someone who maintains the package."""
    return notebooks("7_engine")


def solutions() -> list[Path]:
    """The notebooks with worked solutions."""
    return notebooks("solutions")


@cache
class Notebook:
    """A notebook's cells, read once in a process: to look at, not to change."""

    def __init__(self, path: Path):
        self.path = path
        self.cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in self.cells:
            cell["text"] = "".join(cell["source"])
        self.prose = [c for c in self.cells if c["cell_type"] == "markdown"]
        self.code = [c for c in self.cells if c["cell_type"] == "code" and c["text"].strip()]

    @cached_property
    def module(self) -> str:
        """The module that it exports."""
        return "sepbook." + re.search(r"^#\|\s*default_exp\s+(\S+)", self.code_text, re.M).group(1)

    @cached_property
    def text(self) -> str:
        """All prose, cell after cell."""
        return "\n\n".join(c["text"] for c in self.prose)

    @cached_property
    def headings(self) -> list[str]:
        """The second-level headings in order, lower case."""
        return [h.strip().lower() for h in re.findall(r"^## (.+)$", self.text, re.M)]

    def section(self, start: str) -> str:
        """The prose below the second-level heading that starts with `start` (any case)."""
        parts = re.split(r"^## ", self.text, flags=re.M)
        found = [p for p in parts if p.lower().startswith(start.lower())]
        return found[0] if found else ""

    def outputs(self):
        """Every stored output with its cell."""
        for cell in self.code:
            for out in cell.get("outputs", []):
                yield cell, out

    @cached_property
    def code_text(self) -> str:
        """All code, cell after cell."""
        return "\n".join(c["text"] for c in self.code)

    def clips(self) -> list[tuple[bytes, str]]:
        """The embedded audio clips: bytes and MIME type."""
        found = []
        for _, out in self.outputs():
            html = "".join(out.get("data", {}).get("text/html", ""))
            for mime, data in re.findall(r'src="data:(audio/[\w-]+);base64,([^"]+)"', html):
                found.append((base64.b64decode(data), mime))
        return found


def seconds(clip: bytes) -> float:
    """How long an embedded clip lasts."""
    import soundfile as sf

    info = sf.info(io.BytesIO(clip))
    return info.frames / info.samplerate
