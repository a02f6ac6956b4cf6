"""The API on one page: each module's functions, classes and methods, a line and a link for each."""

import re

from .book import Book, Definition, Source

TITLE = "API reference"


def line(book: Book, d: Definition) -> str:
    """[name](where it is defined): the first sentence of its docstring."""
    about = " ".join(d.about.split("\n\n")[0].split())
    first = re.match(r".+?\.(?=\s|$)", about)
    words = first.group() if first else about
    address = f"../{book.page_of(d).name}#{d.anchor}"
    return f"[`{d.name}`]({address}): {words}" if words else f"[`{d.name}`]({address})"


def section(book: Book, source: Source) -> str:
    page = book.modules[source.module]
    lines = [f"## {source.module}", "", f"{page.about}. [{page.short_title}](../{page.name})", ""]
    for d in source.definitions.values():
        lines.append(f"- {line(book, d)}")
        lines += [f"    - {line(book, m)}" for m in d.methods]
    return "\n".join(lines)


def api(book: Book) -> str:
    """The page as a Quarto document: lessons' modules first, then the engine room's."""
    sources = [s for s in book.sources.values() if s.definitions and "exercises" not in s.module]
    sections = "\n\n".join(section(book, s) for s in sources)
    about = "Every public function, class and method, with a link to its code and parameters"
    style = "include-in-header: {text: '<style>#TOC a { font-size: .7rem; }</style>'}"
    front = f"title: {TITLE}\ndescription: {about}\ntoc-depth: 2\n{style}"
    return f"---\n{front}\n---\n\n{sections}\n"
