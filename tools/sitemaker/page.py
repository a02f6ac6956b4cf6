"""One notebook, made ready for Quarto: nothing is lost, much is added."""

from copy import deepcopy

import yaml

from .book import Book, Page
from .code import Reference, is_exported, relative, shown
from .home import fenced, with_stamps
from .text import Prose, link
from .widgets import small

BOX = {"level": "Level", "time to read": "Time to read", "runs on": "Runs on", "needs": "Needs"}


def markdown(source: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def front_matter(page: Page) -> dict:
    """The title cell as Quarto wants it."""
    front = {"title": page.title, "output-file": page.output}
    if page.about:
        front["description"] = page.about
    if page.name == "index.ipynb":
        front |= {"page-layout": "full", "toc": False}
        front["pagetitle"] = f"{page.plain_title}: {page.about[0].lower()}{page.about[1:]}"
    text = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=10_000)
    return {"cell_type": "raw", "metadata": {}, "source": f"---\n{text}---"}


def address(book: Book, page: Page, host: str) -> str:
    s = book.settings
    return f"{host}/blob/{s['branch']}/nbs/{page.name}"


def head(book: Book, page: Page, prose: Prose) -> str:
    """The box with level, time, cost and needs, and what can be done with the notebook."""
    items = [
        f"- [{name}]{{.key}} {prose.references(page.front[key])}"
        for key, name in BOX.items()
        if key in page.front
    ]
    s, twin = book.settings, book.solutions(page)
    colab = f"https://colab.research.google.com/github/{s['user']}/{s['repo']}"
    install = f"There, first run: %pip install 'sepbook[course] @ git+{s['git_url']}'"
    download = relative(page, f"notebooks/{page.name}")
    tools = [  # the first gets its href when Quarto is done, which looks for what it has not made
        f'`<a class="tool" data-download="{download}" download>Download the notebook</a>`{{=html}}',
        f'[Open in Colab]({address(book, page, colab)} "{install}"){{.tool}}',
        f"[View source]({address(book, page, s['git_url'])}){{.tool}}",
    ]
    if twin:
        word = f"Chapter {page.number}" if page.is_solution else "Solutions"
        tools.append(f"[{word}]({link(page, twin)}){{.tool}}")
    listing = "\n".join(items)
    return f"::: {{.lesson-box}}\n\n{listing}\n\n{' '.join(tools)}\n\n:::"


def has_picture(cell: dict) -> int:
    """How many pictures a cell shows."""
    found = [o.get("data", {}) for o in cell.get("outputs", [])]
    return sum(any(k.startswith("image/") for k in data) for data in found)


def processed(book: Book, page: Page) -> dict:
    """The notebook of a page as Quarto gets it."""
    prose, reference = Prose(book, page), Reference(book, page)
    cells, pictures = [front_matter(page)], 0
    is_home = page.name == "index.ipynb"
    for cell in deepcopy(page.cells):
        if cell is None:
            continue
        source = cell["source"]
        if cell["cell_type"] == "markdown":
            if cell["source"] == page.cells[0]["source"]:
                if not is_home:
                    cells.append(markdown(head(book, page, prose)))
                continue
            cell["source"] = fenced(prose(source)) if is_home else prose(source)
            cells.append(cell)
            continue
        in_browser = small(page, cell)
        cell["source"] = shown(source)
        if not cell["source"]:
            continue
        cell = with_stamps(book, cell) if is_home else cell
        count = 0 if is_home else has_picture(cell)
        if count == 1:
            pictures += 1
            number = f"{page.number}.{pictures}" if page.number else str(pictures)
            cell["source"] = f'#| fig-cap: "Figure {number}"\n{cell["source"]}'
            cells.append(markdown(f"[]{{#figure-{number.replace('.', '-')}}}"))
        cells.append(cell)
        if is_exported(source) and (told := reference(source)):
            cells.append(markdown(told))
        if in_browser:
            cells.append(markdown(in_browser))
    for cell in cells:
        cell["source"] = cell["source"].splitlines(keepends=True)
    page_nb = {k: v for k, v in page.nb.items() if k != "cells"}
    return {**page_nb, "cells": cells}


def bare(page: Page) -> dict:
    """The notebook to download: as it is in the repository, its outputs left out."""
    nb = deepcopy(page.nb)
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return nb
