"""Process every notebook into _proc, let Quarto render it, and finish its pages.

python -m sitemaker process      notebooks and configuration into _proc (needs no Quarto)
python -m sitemaker render       the same, then Quarto, then the finishing touches: _docs
python -m sitemaker render PAGE  only some pages, named as below nbs/
python -m sitemaker preview      the same, with Quarto's live preview (processed once)
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from . import slides
from .bibliography import listing
from .book import PARTS, Book, Written
from .finish import finish
from .page import bare, processed
from .reference import api
from .systems import index
from .text import Prose

ROOT = Path(__file__).resolve().parent.parent.parent
NOT_SHOWN = ("_quarto", "nbdev.yml", "readme-")  # README.md's pictures are on pages already
SECTIONS = {"reference": "Reference", "teach": "For teachers"}


def sidebar(book: Book, pages: list[str]) -> list:
    """The sidebar, from the tree: every notebook has its place, whoever adds it."""
    home = [n for n in pages if "/" not in n and n.split(".")[0] not in ("index", "404", "licence")]
    found: list = ["index.ipynb", *sorted(home)]
    others = sorted({n.split("/")[0] for n in pages if "/" in n} - set(PARTS))
    for folder, (letter, title) in PARTS.items():
        inside = [p for p in book.pages if p.folder == folder]
        if inside:
            contents = [{"text": p.short_title, "href": p.name} for p in inside]
            found.append({"section": f"{letter} {title}", "contents": contents})
    for folder in others:
        title = SECTIONS.get(folder, folder.replace("_", " ").capitalize())
        contents = sorted(n for n in pages if n.startswith(folder + "/"))
        found.append({"section": title, "contents": contents})
    return found


def configuration(book: Book, pages: list[str]) -> dict:
    """_quarto.yml with what settings.ini and the tree know."""
    s = book.settings
    config = yaml.safe_load((book.root / "_quarto.yml").read_text(encoding="utf-8"))
    config["project"]["output-dir"] = s["doc_path"]
    config["website"] |= {
        "title": s["title"],
        "description": s["description"],
        "site-url": s["doc_host"] + s["doc_baseurl"],
        "repo-url": s["git_url"],
        "repo-branch": s["branch"],
        "repo-subdir": "nbs",
    }
    config["website"]["sidebar"]["contents"] = sidebar(book, pages)
    return config


def filled(text: str, book: Book) -> str:
    """{version} and {repo} in the configuration and in written pages."""
    s = book.settings
    return text.replace("{version}", s["version"]).replace("{repo}", s["git_url"])


# Parts of written pages that are made from data.
MADE = {"{bibliography}": listing, "{systems}": index, "{slides}": slides.contents}


def minutes(book: Book, numbers: str) -> str:
    """How long chapters take: {minutes 1 2} in a written page."""
    pages = [book.chapters[n] for n in numbers.split()]
    read = sum(int(re.match(r"\d+", p.front["time to read"])[0]) for p in pages)
    exercises = re.findall(
        r"difficulty \d of 5, about (\d+) minutes", "".join(p.text for p in pages)
    )
    return f"reading {read} min, all exercises {sum(map(int, exercises))} min"


def written(book: Book, path: Path) -> str:
    """A .qmd page as Quarto gets it: filled in; in SECTIONS with links, as a chapter's text."""
    text = filled(path.read_text(encoding="utf-8"), book)
    text = re.sub(r"\{minutes ([\d ]+)\}", lambda m: minutes(book, m[1]), text)
    page = Written(path, book.nbs)
    if page.folder in SECTIONS:
        front, rest = re.match(r"(---\n.*?\n---\n)?(.*)", text, re.S).groups()
        text = (front or "") + Prose(book, page)(rest) + "\n"
    for mark, make in MADE.items():
        text = text.replace(mark, make(book)) if mark in text else text
    return text


def process(root: Path = ROOT, out: Path | None = None) -> Book:
    """Everything that Quarto needs, in `out` (default: _proc)."""
    book, out = Book(root), out or root / "_proc"
    shutil.rmtree(out, ignore_errors=True)
    others = [
        p
        for p in book.nbs.rglob("*")
        if p.is_file() and p.suffix != ".ipynb" and not p.name.startswith(NOT_SHOWN)
    ]
    for path in others:
        target = out / path.relative_to(book.nbs)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        if path.suffix == ".qmd":
            target.write_text(written(book, path), encoding="utf-8")
    for page in book.pages:
        target = out / page.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(processed(book, page)), encoding="utf-8")
    qmd = [p.relative_to(book.nbs).as_posix() for p in others if p.suffix == ".qmd"]
    (out / "reference").mkdir(exist_ok=True)
    (out / "reference/api.qmd").write_text(api(book), encoding="utf-8")
    slides.write(book, out)
    names = [p.name for p in book.pages] + [*qmd, "reference/api.qmd"]
    text = yaml.safe_dump(configuration(book, names), allow_unicode=True, sort_keys=False)
    (out / "_quarto.yml").write_text(filled(text, book), encoding="utf-8")
    return book


def render(root: Path = ROOT, only: list[str] | None = None) -> None:
    """The site into _docs, or only some of its pages."""
    book = process(root)
    work, docs = root / "_proc", root / book.settings["doc_path"]
    if only:
        config = yaml.safe_load((work / "_quarto.yml").read_text(encoding="utf-8"))
        config["project"]["render"] = only
        (work / "_quarto.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    subprocess.run(["quarto", "render", "--no-cache"], cwd=work, check=True)
    shutil.rmtree(docs, ignore_errors=True)
    shutil.move(work / book.settings["doc_path"], docs)
    for page in book.pages:
        target = docs / "notebooks" / page.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(bare(page), indent=1), encoding="utf-8")
    finish(book, docs)


def main() -> None:
    what, *only = sys.argv[1:] or ["help"]
    if what == "process":
        process()
    elif what == "render":
        render(only=only)
    elif what == "preview":
        process()
        os.chdir(ROOT / "_proc")
        os.execvp("quarto", ["quarto", "preview"])
    else:
        sys.exit(__doc__)
