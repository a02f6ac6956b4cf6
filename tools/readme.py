"""Write README.md from the home page and nbs/start.qmd, with their pictures and sounds.

python tools/readme.py            writes README.md and nbs/assets/readme-*
python tools/readme.py --check    writes nothing; fails if they are not what the home page gives
"""

import base64
import html
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
NOTE = "<!-- From nbs/index.ipynb and nbs/start.qmd: edit them, then `make export`. -->\n"
PLAYER = re.compile(r'<audio[^>]*src="data:audio/mpeg;base64,([^"]+)"', re.S)


def relink(text: str) -> str:
    """Links of the home page are relative to nbs/; README.md lies one folder up."""
    return re.sub(r"\]\((?!https?://|#|\.\./)([^)]+)\)", r"](nbs/\1)", text).replace("](../", "](")


def title(text: str) -> str:
    """The title cell without its front matter."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("- "))


def plain(text: str) -> str:
    """Without the marks of the site's columns, <!-- ::: name -->."""
    return re.sub(r"^<!-- :{3,}.*?-->\n?", "", text, flags=re.M).strip("\n")


class Readme:
    """Collects README.md's text and the files that it shows."""

    def __init__(self):
        self.parts: list[str] = [NOTE]
        self.files: dict[str, bytes] = {}

    def file(self, data: bytes, suffix: str) -> str:
        """Keep `data` as the next numbered file below nbs/assets; return its path from the root."""
        number = sum(name.endswith(suffix) for name in self.files) + 1
        name = f"nbs/assets/readme-{number}{suffix}"
        self.files[name] = data
        return name

    def picture(self, png: str, alt: str) -> str:
        return f"![{alt}]({self.file(base64.b64decode(png), '.png')})"

    def sounds(self, source: str) -> str:
        """A list of links, one per player; the title of a player is the last text before it."""
        lines, at = [], 0
        for player in PLAYER.finditer(source):
            words = re.sub(r"<[^>]+>", "\n", source[at : player.start()]).split("\n")
            name = next((html.unescape(w).strip() for w in reversed(words) if w.strip()), "listen")
            path = self.file(base64.b64decode(player.group(1)), ".mp3")
            lines.append(f"- ▶ [{name}]({path})")
            at = player.end()
        return "\n".join(lines)

    def output(self, out: dict, alt: str) -> None:
        data = {key: "".join(value) for key, value in out.get("data", {}).items()}
        if "image/png" in data:
            self.parts.append(self.picture(data["image/png"], alt))
        elif PLAYER.search(data.get("text/html", "")):
            self.parts.append(self.sounds(data["text/html"]))
        elif "text/markdown" in data:
            self.parts.append(relink(data["text/markdown"]))
        elif out.get("output_type") == "stream" or "text/plain" in data:
            text = "".join(out.get("text", "")) or data["text/plain"]
            self.parts.append(f"```text\n{text.rstrip()}\n```")

    def cell(self, cell: dict, first: bool) -> None:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            self.parts.append(relink(title(source) if first else plain(source)))
            return
        options = dict(re.findall(r"^#\|\s*([\w-]+):\s*(.*)$", source, re.M))
        code = re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip()
        if code and options.get("echo") != "false":
            self.parts.append(f"```python\n{code}\n```")
        for out in cell.get("outputs", []):
            self.output(out, options.get("fig-alt", '""').strip('"'))


def build() -> dict[str, bytes]:
    """README.md and the files that it shows: path from the root -> content."""
    notebook = json.loads((NBS / "index.ipynb").read_text(encoding="utf-8"))
    readme = Readme()
    for index, cell in enumerate(notebook["cells"]):
        readme.cell(cell, first=index == 0)
    _, text = (NBS / "start.qmd").read_text(encoding="utf-8").split("\n---\n", 1)
    readme.parts.append(relink(text))
    text = "\n\n".join(part.strip("\n") for part in readme.parts if part.strip()) + "\n"
    return {"README.md": text.encode(), **readme.files}


def main() -> None:
    files = build()
    assets = NBS / "assets"
    stale = {str(p.relative_to(ROOT)) for p in assets.glob("readme-*")} - set(files)
    changed = [
        n for n, d in files.items() if not (ROOT / n).exists() or (ROOT / n).read_bytes() != d
    ]
    if "--check" in sys.argv:
        sys.exit(
            f"README.md is not in step: run make export ({changed + list(stale)})"
            if changed or stale
            else 0
        )
    assets.mkdir(exist_ok=True)
    for name in stale:
        (ROOT / name).unlink()
    for name in changed:
        (ROOT / name).write_bytes(files[name])


if __name__ == "__main__":
    main()
