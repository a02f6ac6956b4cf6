"""The index of systems: a page made from one table of data."""

import csv
import re

GROUPS = {
    "card": "The systems of the course",
    "lectures": "More from the lectures",
    "compared": "Named for comparison",
    "beyond": "After the lectures",
}


def rows(book) -> list[dict]:
    with open(book.nbs / "reference/systems.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def chapter(book, number: str, text: str = "") -> str:
    page = book.chapters.get(number)
    return f"[{text or number}](../{page.name})" if page else text


def paper(book, name: str) -> str:
    """A link to the bibliography, or to arXiv for what no chapter recommends."""
    if name.startswith("arXiv:"):
        return f"[{name}](https://arxiv.org/abs/{name.removeprefix('arXiv:')})"
    found = {w.key: w.short for w in book.bibliography.works}
    return f"[{found[name]}](bibliography.qmd#{name})" if name else ""


def line(book, row: dict) -> str:
    where = re.fullmatch(r"chapter (\d+)", row["source"])
    source = chapter(book, where[1], row["source"]) if where else row["source"]
    figure = f"**{row['published']}** {row['measure']} ({source})" if row["published"] else ""
    cells = [
        row["name"],
        row["year"],
        row["for"],
        row["works on"],
        chapter(book, row["chapter"]),
        paper(book, row["paper"]),
        figure,
    ]
    return f"| {' | '.join(cells)} |"


def index(book) -> str:
    """A table for each group, by year."""
    head = "| System | Year | For | Works on | Chapter | Paper | Published figure |"
    pieces = []
    for group, title in GROUPS.items():
        inside = [r for r in rows(book) if r["group"] == group]
        inside.sort(key=lambda r: (r["year"], r["name"]))
        widths = "|:------|:--|:----|:-----|:--|:-------|:----------|"
        table = "\n".join([head, widths, *(line(book, r) for r in inside)])
        pieces.append(f"## {title}\n\n::: {{.data}}\n\n{table}\n\n:::")
    return "\n\n".join(pieces)
