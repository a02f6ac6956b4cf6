"""Slides from the chapters: objectives, headings, equations, figures, sounds, summaries."""

import base64
import re
from html import escape, unescape
from pathlib import Path

import yaml

from .book import EQUATION, Book, Page

# What the plan for teachers reads after the foundations.
READ = "10 13 20 21 22 23 24 41 42 43 44 45 46 61 79 80".split()
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
    return foundations + [book.chapters[n] for n in READ if n in book.chapters]


def name(page: Page) -> str:
    return f"teach/slides/{page.path.stem}.qmd"


def unlinked(text: str) -> str:
    text = re.sub(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?:[^()\n]|\([^)]*\))*\)", r"\1", text)
    return re.sub(r"<[^>\n]+>", "", text)


def split_at(cells: list[dict], mark: str) -> list[tuple[str, list[dict]]]:
    """Cells by the headings that begin with `mark`: a heading, and the cells below it."""
    found = [("", [])]
    for cell in cells:
        if cell["cell_type"] != "markdown":
            found[-1][1].append(cell)
            continue
        for part in re.split(rf"^(?={mark} )", cell["source"], flags=re.M):
            head = re.match(rf"{mark} (.+)", part)
            if head:
                found.append((unlinked(head[1]).strip(), []))
            found[-1][1].append({"cell_type": "markdown", "source": part})
    return found


def bullets(page: Page, heading: str) -> list[str]:
    for title, cells in split_at(page.cells, "##"):
        if title.lower().startswith(heading):
            text = "\n".join(c["source"] for c in cells if c["cell_type"] == "markdown")
            return [unlinked(b) for b in re.findall(r"^- (.+)$", text, re.M)]
    return []


def figures(cell: dict) -> list[bytes]:
    """The pictures of a cell, as on the chapter's page: so the site stores them once."""
    found = ["".join(o.get("data", {}).get("image/png", "")) for o in cell.get("outputs", [])]
    return [base64.b64decode(data) for data in found if data]


def sounds(cell: dict) -> str:
    """The players of a cell, with what they play."""
    players = []
    for out in cell.get("outputs", []):
        for caption, _, source in SOUND.findall("".join(out.get("data", {}).get("text/html", ""))):
            label = escape(unescape(re.sub(r"<[^>]+>", "", caption).strip()))
            player = (
                f'<audio controls preload="metadata" aria-label="{label}" src="{source}"></audio>'
            )
            players.append(f"<figure><figcaption>{label}</figcaption>{player}</figure>")
    return f'```{{=html}}\n<div class="sounds">{"".join(players)}</div>\n```' if players else ""


def sentences(text: str) -> list[str]:
    """The first sentence of each paragraph, where it is one that stands alone."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = " ".join(unlinked(paragraph).split())
        if not paragraph or re.match(r"[#|$>*\-`:<\d]", paragraph):
            continue
        sentence = re.match(r".+?[.?!](?=\s|$)", paragraph)
        if sentence and len(sentence[0]) > 25 and not sentence[0][0].islower():
            found.append(sentence[0])
    return found


def pieces(cells: list[dict]) -> list[tuple[str, list[dict]]]:
    """A section's cells by its subsections; exercises are left out."""
    found = split_at(cells, "###")
    return [(title, inside) for title, inside in found if not SKIPPED.search(title)]


def shared(items: list[str], most: int) -> list[list[str]]:
    """Items over as few slides as there must be, equally many on each."""
    count = -(-len(items) // most)
    size = -(-len(items) // max(1, count))
    return [items[i : i + size] for i in range(0, len(items), size)]


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
                "auto-stretch": False,  # it gives some pictures no height; STYLE sizes them
                "html-math-method": "mathml",
                "footer": f"sepbook, chapter {page.number}",
                "include-in-header": {"text": f"<style>{STYLE}</style>"},
            }
        },
    }
    head = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=10_000)
    slides, count = [f"---\n{head}---"], 0

    def listed(title: str, items: list[str], most: int = 7) -> None:
        for part in shared(items, most):
            slides.append(f"## {title}\n\n" + "\n".join(f"- {x}" for x in part))

    def drawn(cells: list[dict], title: str) -> list[tuple[str, str]]:
        """Pictures of a piece, two at most, as Markdown, and what they show."""
        nonlocal count
        found = []
        for cell in cells:
            alt = re.search(r'#\|\s*fig-alt:\s*"?(.*?)"?\s*$', cell["source"], re.M)
            for picture in figures(cell)[: 2 - len(found)]:
                count += 1
                file = f"{page.path.stem}/figure-{count}.png"
                if folder:
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    (folder / file).write_bytes(picture)
                words = re.sub(r"[\[\]\"]", "", alt[1]) if alt else title
                found.append((f'![]({file}){{fig-alt="{words}"}}', words))
        return found

    listed("You will be able to", bullets(page, "you will be able"))
    for heading, section in split_at(page.cells, "##"):
        if not heading or SKIPPED.search(heading):
            continue
        for name, cells in pieces(section):
            title = f"{heading}: {name}" if name else heading
            text = "\n\n".join(c["source"] for c in cells if c["cell_type"] == "markdown")
            said, pictures = sentences(text), drawn(cells, title)
            equations = list(EQUATION.finditer(text))[:2]
            heard = next((s for c in cells if (s := sounds(c))), "")
            if not (pictures or equations or heard or len(said) > 1):
                continue
            room = 5 - 2 * len(equations) - 2 * bool(heard)
            if pictures and not equations:  # the first picture joins the words
                room = min(room, 2)
            told = said[: max(1, room)]
            body = "\n".join(f"- {x}" for x in told) if len(told) > 1 else "".join(told)
            body += "".join(f"\n\n$${e[1]}{e[3]}$$" for e in equations)
            body += f"\n\n{heard}" if heard else ""
            notes = " ".join(said[len(told) :])
            if pictures and not equations:
                (picture, words), *pictures = pictures
                body += f"\n\n{picture}"
                notes = f"{words}\n\n{notes}"
            notes = f"\n\n::: {{.notes}}\n{notes.strip()}\n:::" if notes.strip() else ""
            slides.append(f"## {title}\n\n{body}{notes}")
            for picture, words in pictures:
                slides.append(f"## {title}\n\n{picture}\n\n::: {{.notes}}\n{words}\n:::")
    listed("Summary", bullets(page, "summary"))
    exercises = re.findall(r"^#{2,4} (Exercise [\d.]+: .+)$", page.text, re.M)
    if exercises:
        listed("Exercises", exercises, 10)
    return "\n\n".join(slides) + "\n"


STYLE = (
    ".reveal{font-size:28px}"
    ".reveal .slides section{text-align:left}"
    ".reveal .slides section>h2{font-size:1.45em;color:#1f4e79;border-bottom:3px solid #d4dae0;"
    "padding-bottom:.15em;margin-bottom:.5em}"
    ".reveal #title-slide h1{color:#1f4e79;font-size:2.3em}"
    ".reveal li{margin-bottom:.35em}"
    '.reveal math{font-family:"Latin Modern Math",math}'
    ".reveal math[display=block]{margin:.6em 0;font-size:1.1em}"
    ".reveal .sounds .sepbook-player,.reveal .sounds{font-size:.85em;max-width:none}"
    ".reveal .sounds figure{margin:0}.reveal .sounds figcaption{font-size:.8em}"
    ".reveal p:has(>img){margin:.3em 0;text-align:center}"
    ".reveal img{margin:0 auto!important;max-height:380px!important;max-width:100%;width:auto}"
    ".reveal h2+p>img{max-height:540px!important}"
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
