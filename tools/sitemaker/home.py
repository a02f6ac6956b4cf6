"""The home page: its columns, and a picture and a sound on each chapter's card."""

import base64
import io
import re
from html import escape, unescape

from PIL import Image

from .book import Book, Page

# <!-- :::: words --> in the notebook, which neither JupyterLab nor GitHub shows, is a block here.
FENCE = re.compile(r"^<!-- (:{3,})(?: (\w+))? -->$", re.M)
CARD = re.compile(r'<div class="card-chapter" data-chapter="(\d+)">')
LINK = re.compile(r'href="([\w/]+\.ipynb)"')
CLIP = re.compile(r"<figcaption[^>]*>([^<]*)</figcaption><audio[^>]*\bsrc=\"(data:audio/[^\"]+)\"")
GIVEN = re.compile(r"mix|target|true|original|reference|clean|noisy", re.I)
SIZE = (144, 96)


def fenced(text: str) -> str:
    return FENCE.sub(lambda m: f"\n{m[1]}{f' {{.{m[2]}}}' if m[2] else ''}\n", text)


def outputs(page: Page, kind: str) -> list[str]:
    """What the cells of a chapter have shown, of one kind."""
    found = [o.get("data", {}) for c in page.cells for o in c.get("outputs", [])]
    return ["".join(data[kind]) for data in found if kind in data]


def picture(page: Page) -> str:
    """The first picture of a chapter, without its margins, as small as a stamp."""
    found = outputs(page, "image/png")
    if not found:
        return ""
    image = Image.open(io.BytesIO(base64.b64decode(found[0]))).convert("RGB")
    wide, high = image.size
    part = min(wide, high * SIZE[0] / SIZE[1])  # from the left, where a first panel stands
    left = min(0.1 * wide, wide - part)
    image = image.resize(SIZE, box=(left, 0, left + part, min(high, part * SIZE[1] / SIZE[0])))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=60, method=6)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="" width="72" height="48" src="data:image/webp;base64,{data}">'


def sound(page: Page) -> tuple[str, str]:
    """What a chapter makes audible: an estimate before a mixture; its name and its data."""
    clips = [c for text in outputs(page, "text/html") for c in CLIP.findall(text)]
    made = [c for c in clips if c[0].strip() and not GIVEN.search(c[0])]
    return (made or clips or [("", "")])[0]


def stamp(book: Book, number: str) -> str:
    """A chapter's picture, which plays the chapter's sound."""
    page = book.chapters[number]
    shown, (name, data) = picture(page), sound(page)
    if not data:
        return f'<span class="stamp">{shown}</span>' if shown else ""
    words = escape(f"Hear from chapter {number}: {unescape(name).strip() or 'a clip'}")
    return (
        f'<button type="button" class="stamp hear" aria-pressed="false" aria-label="{words}" '
        f'title="{words}">{shown}<span aria-hidden="true">▶</span></button>'
        f'<audio preload="none" src="{data}"></audio>'
    )


def with_stamps(book: Book, cell: dict) -> dict:
    """A cell of the home page: links that lead to pages, pictures and sounds on its cards."""
    for out in cell.get("outputs", []):
        html = "".join(out.get("data", {}).get("text/html", ""))
        if "home-" in html or "card-chapter" in html:
            html = CARD.sub(lambda m: m.group() + stamp(book, m[1]), html)
            html = LINK.sub(lambda m: f'href="{book.by_name[m[1]].url}"', html)
            out["data"] = {"text/html": html}
    return cell
