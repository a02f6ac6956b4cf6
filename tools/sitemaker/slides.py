"""Slides from the chapters: objectives, headings, equations, figures, sounds, summaries."""

import base64
import io
import re
from html import escape
from pathlib import Path

import yaml
from PIL import Image

from .book import EQUATION, Book, Page

# The systems of the card, one after the other; the foundations come before them.
CARD = "13 21 22 23 24 41 42 43 44 45 46 61".split()
SKIPPED = re.compile(
    r"further reading|exercise|you will be able|summary|checks|run it at scale", re.I
)
SOUND = re.compile(
    r"<figcaption[^>]*>(.*?)</figcaption>.*?(<audio\b[^>]*?src=[\"'](data:audio/[^\"']+)[\"'])",
    re.S,
)


def shown(book: Book) -> list[Page]:
    """The chapters that have slides."""
    foundations = [p for p in book.pages if p.folder == "1_foundations"]
    return foundations + [book.chapters[n] for n in CARD if n in book.chapters]


def name(page: Page) -> str:
    return f"teach/slides/{page.path.stem}.qmd"


def unlinked(text: str) -> str:
    text = re.sub(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?:[^()\n]|\([^)]*\))*\)", r"\1", text)
    return re.sub(r"<[^>\n]+>", "", text)


def sections(page: Page) -> list[tuple[str, list[dict]]]:
    """The chapter's parts: a heading, and the cells below it."""
    found = [("", [])]
    for cell in page.cells:
        if cell["cell_type"] != "markdown":
            found[-1][1].append(cell)
            continue
        for part in re.split(r"^(?=## )", cell["source"], flags=re.M):
            head = re.match(r"## (.+)", part)
            if head:
                found.append((head[1].strip(), []))
            found[-1][1].append({"cell_type": "markdown", "source": part})
    return found


def bullets(page: Page, heading: str) -> list[str]:
    for title, cells in sections(page):
        if title.lower().startswith(heading):
            text = "\n".join(c["source"] for c in cells if c["cell_type"] == "markdown")
            return [unlinked(b) for b in re.findall(r"^- (.+)$", text, re.M)]
    return []


def figures(cell: dict) -> list[bytes]:
    """The pictures of a cell, as small PNG files."""
    found = []
    for out in cell.get("outputs", []):
        data = "".join(out.get("data", {}).get("image/png", ""))
        if data:
            picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
            picture.thumbnail((1200, 1200))
            file = io.BytesIO()
            picture.quantize(64).save(file, "PNG", optimize=True)
            found.append(file.getvalue())
    return found


def sounds(cell: dict) -> str:
    """The players of a cell, with what they play."""
    players = []
    for out in cell.get("outputs", []):
        for caption, _, source in SOUND.findall("".join(out.get("data", {}).get("text/html", ""))):
            label = escape(re.sub(r"<[^>]+>", "", caption).strip())
            player = (
                f'<audio controls preload="metadata" aria-label="{label}" src="{source}"></audio>'
            )
            players.append(f"<figure><figcaption>{label}</figcaption>{player}</figure>")
    return f'```{{=html}}\n<div class="sounds">{"".join(players)}</div>\n```' if players else ""


def first(text: str) -> tuple[str, str]:
    """The first sentence of a part, and the whole paragraph that it begins."""
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = " ".join(unlinked(paragraph).split())
        if paragraph and not re.match(r"[#|$>*\-`:<\d]", paragraph):
            sentence = re.match(r".+?[.?!:](?=\s|$)", paragraph)
            return (sentence[0] if sentence else paragraph).rstrip(":"), paragraph
    return "", ""


def deck(book: Book, page: Page, folder: Path | None = None) -> str:
    """The slides of a chapter; its pictures go into `folder`."""
    front = {
        "title": page.title,
        "subtitle": page.about,
        "search": False,
        "format": {
            "revealjs": {
                "theme": "default",
                "slide-number": True,
                "html-math-method": "mathml",
                "footer": f"sepbook, chapter {page.number}",
                "include-in-header": {"text": f"<style>{STYLE}</style>"},
            }
        },
    }
    head = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=10_000)
    slides, count = [f"---\n{head}---"], 0

    def listed(title: str, items: list[str]) -> None:
        for i in range(0, len(items), 5):
            body = "\n".join(f"- {x}" for x in items[i : i + 5])
            slides.append(f"## {title}\n\n{body}")

    listed("You will be able to", bullets(page, "you will be able"))
    for heading, cells in sections(page):
        if not heading or SKIPPED.search(heading):
            continue
        text = "\n\n".join(c["source"] for c in cells if c["cell_type"] == "markdown")
        sentence, paragraph = first(text)
        equations = list(EQUATION.finditer(text))[:2]
        formula = "".join(f"\n\n$${e[1]}{e[3]}$$" for e in equations)
        heard = next((s for c in cells if (s := sounds(c))), "")
        notes = f"\n\n::: {{.notes}}\n{paragraph}\n:::" if paragraph != sentence else ""
        slides.append(f"## {heading}\n\n{sentence}{formula}\n\n{heard}{notes}")
        seen = 0
        for cell in cells:
            alt = re.search(r'#\|\s*fig-alt:\s*"?(.*?)"?\s*$', cell["source"], re.M)
            for picture in figures(cell):
                if seen < 2:
                    seen, count = seen + 1, count + 1
                    file = f"{page.path.stem}/figure-{count}.png"
                    if folder:
                        (folder / file).parent.mkdir(parents=True, exist_ok=True)
                        (folder / file).write_bytes(picture)
                    words = re.sub(r"[\[\]\"]", "", alt[1]) if alt else heading
                    slides.append(
                        f'## {heading}\n\n![]({file}){{fig-alt="{words}"}}\n\n'
                        f"::: {{.notes}}\n{words}\n:::"
                    )
    listed("Summary", bullets(page, "summary"))
    exercises = re.findall(r"^#{2,4} (Exercise [\d.]+: .+)$", page.text, re.M)
    if exercises:
        listed("Exercises", exercises)
    return "\n\n".join(slides) + "\n"


STYLE = (
    ".reveal{font-size:30px}"
    ".reveal .sounds{display:flex;flex-wrap:wrap;gap:.6em;justify-content:center}"
    ".reveal .sounds figure{margin:0}.reveal .sounds figcaption{font-size:.7em}"
    ".reveal img{max-height:520px!important;width:auto}"
)


def write(book: Book, out: Path) -> None:
    """The slides of every chapter that has them, below `out`."""
    for page in shown(book):
        target = out / name(page)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(deck(book, page, target.parent), encoding="utf-8")


def contents(book: Book) -> str:
    """Links to the slides and their chapters."""
    return "\n".join(
        f"- [{p.short_title}]({name(p).removeprefix('teach/')}), slides of chapter "
        f"[{p.number}](../{p.name})"
        for p in shown(book)
    )
