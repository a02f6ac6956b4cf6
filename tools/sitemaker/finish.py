"""What is done to the pages that Quarto has written."""

import html as entities
import json
import re
from pathlib import Path

from sepbook.engine.show import PLAYER_SCRIPT, PLAYER_STYLE

from .book import Book, Definition
from .media import Media

OUTSIDE = re.compile(
    r'<script[^>]*\ssrc="https?://[^>]*>\s*</script>'
    r"|<script[^>]*>define\('jquery'.*?</script>"
    r'|<link\b(?=[^>]*rel="(?:stylesheet|preload|preconnect))(?=[^>]*href="https?:)[^>]*>',
    re.S,
)
LANDMARKS = {
    'class="navbar ': "Site",
    'id="quarto-sidebar"': "Course",
    'class="quarto-secondary-nav"': "Place",
    'class="page-navigation"': "Before and after",
}
LONGEST = 3000  # characters of a section that the search knows
TABLE = re.compile(r"<table\b(?![^>]*\bparameters\b).*?</table>", re.S)


def without_outside(html: str) -> str:
    """No script and no style from another host: Quarto adds require.js and jQuery to every page."""
    return OUTSIDE.sub("", html)


def labelled(html: str) -> str:
    """Names for landmarks, and no roles that do not fit: what axe-core asks for."""
    for what, name in LANDMARKS.items():
        html = html.replace(f"<nav {what}", f'<nav aria-label="{name}" {what}')
    for old, new in (
        ('aria-controls="navbarCollapse" role="menu"', 'aria-controls="navbarCollapse"'),
        ('<a class="flex-grow-1" role="navigation"', '<a class="flex-grow-1" role="button"'),
    ):
        html = html.replace(old, new)
    return re.sub(r'(<a class="sidebar-item-[^>]*?)role="navigation"', r'\1role="button"', html)


def with_tables(html: str, number: str | None) -> str:
    """Tables are numbered (not on a page without `number`), scroll, and have no empty header."""
    start = html.find("<main")
    count = 0

    def shown(m):
        nonlocal count
        count += 1
        name = f"{number}.{count}"
        table = re.sub(r"<th\b([^>]*)>\s*</th>", r"<td\1></td>", m.group())
        table = re.sub(r"<td\b([^>]*?)\s*data-quarto-table-cell-role=\"th\"", r"<td\1", table)
        if number is not None and "<caption" not in table:
            table = re.sub(
                r"(<table\b[^>]*>)",
                rf'\1<caption id="table-{name.replace(".", "-")}">Table {name}</caption>',
                table,
                count=1,
            )
        return f'<div class="table-box scrolls">{table}</div>'

    return html[:start] + TABLE.sub(shown, html[start:])


MOVER, BAR = re.compile(r"<mover\b[^>]*>|</mover>"), '<mo accent="true">¯</mo>'
LETTER = re.compile(r"<mi[^>]*>[^<]*</mi>")
LINE = '<mrow style="border-top:.05em solid;padding-top:.12em">'


def with_bars(html: str) -> str:
    """A bar over more than a letter is a line over all of it: Latin Modern's does not stretch."""
    opened, edits = [], []
    for tag in MOVER.finditer(html):
        if tag[0] != "</mover>":
            opened.append(tag)
        elif opened:
            start, end = opened.pop(), tag.start() - len(BAR)
            barred = html.endswith(BAR, 0, tag.start())
            if barred and not LETTER.fullmatch(html, start.end(), end):
                edits += [(*start.span(), LINE), (end, tag.end(), "</mrow>")]
    for start, end, new in sorted(edits, reverse=True):
        html = html[:start] + new + html[end:]
    return html


FORMULA = re.compile(
    r"<semantics>(.*?)<annotation encoding=\"application/x-tex\">(.*?)</annotation>", re.S
)


def without_source(text: str, html: str) -> str:
    """What a section says, with each formula once: Quarto's index has it as text and as TeX."""
    pairs = {
        (entities.unescape(re.sub(r"<[^>]+>", "", shown)), entities.unescape(tex))
        for shown, tex in FORMULA.findall(html)
    }
    for shown, tex in sorted(pairs, key=lambda pair: -len(pair[1])):
        text = text.replace(shown + tex, shown)
    return text


PLAYER = re.compile(
    r"<style>(?:(?!</style>).)*?\.sepbook-player \.bar(?:(?!</style>).)*</style>"
    r"|<script>(?:(?!</script>).)*?window\.sepbookPlayer \|\|=(?:(?!</script>).)*</script>",
    re.S,
)


def with_ours(html: str, top: str) -> str:
    """The site's own font, script and player, which Quarto would not leave where they are."""
    at, styles, scripts = f"{top}assets/site", ["site"], ["site"]
    if "<audio" in html or "sepbook-player" in html or "sepbookPlayer" in html:
        html = PLAYER.sub("", html)
        styles, scripts = ["player", *styles], ["player", *scripts]
    if 'class="sepbook-desk"' in html or 'class="sepbook-scissors"' in html:
        scripts.append("widgets")
    if 'class="hero"' in html:
        html = html.replace('<body class="', '<body class="home ', 1)
    head = [f'<link rel="stylesheet" href="{at}/{name}.css">\n' for name in styles]
    head += [f'<script src="{at}/{name}.js" defer></script>\n' for name in scripts]
    return html.replace("</head>", f"{''.join(head)}</head>", 1)


def entry(book: Book, d: Definition) -> dict:
    """A definition as the search index has it."""
    page = book.page_of(d)
    address = f"{page.url}#{d.anchor}"
    return {
        "objectID": address,
        "href": address,
        "title": d.name,
        "section": d.name.split(".")[-1],
        "text": f"{d.signature}\n{d.about.splitlines()[0] if d.about else ''}\n{d.module}",
        "crumbs": [page.title, d.module],
    }


def definitions(book: Book) -> list[dict]:
    """Every public function, class and method, for the search."""
    found = []
    for source in book.sources.values():
        if ".exercises" in source.module:
            continue
        for d in source.definitions.values():
            found += [entry(book, x) for x in (d, *d.methods)]
    return found


def with_drawn_links(script: str) -> str:
    """Quarto's script takes the address of every link for text; that of a drawn one is not."""
    return re.sub(r"if \((links\[i\]\.href)\)", r'if (typeof \1 === "string")', script)


def index(book: Book, entries: list[dict], pages: dict[str, str]) -> list[dict]:
    """The search's entries: definitions first, and of long sections their beginning."""
    short = []
    for e in entries:
        text = without_source(e["text"], pages.get(e["href"].split("#")[0], ""))
        short.append(e | {"text": text[:LONGEST]})
    return definitions(book) + short


def finish(book: Book, docs: Path) -> None:
    numbers = {p.url: p.number for p in book.pages if p.number and not p.is_solution}
    pages, media = {}, Media(docs)
    site = book.settings["doc_host"] + book.settings["doc_baseurl"]
    for path in docs.rglob("*.html"):
        name = path.relative_to(docs).as_posix()
        html = path.read_text(encoding="utf-8")
        html = labelled(without_outside(html)).replace("data-download=", "href=")
        pages[name] = html = with_bars(with_tables(html, numbers.get(name)))
        # a page that is not found may be asked for at any depth
        lost = name == "404.html"
        top = f"{book.settings['doc_baseurl']}/" if lost else "../" * name.count("/")
        path.write_text(media.page(with_ours(html, top), path, site), encoding="utf-8")
    media.tidy()
    for name, text in (("css", PLAYER_STYLE), ("js", PLAYER_SCRIPT)):
        (docs / f"assets/site/player.{name}").write_text(text, encoding="utf-8")
    for script in docs.glob("site_libs/quarto-nav/quarto-nav.js"):
        script.write_text(with_drawn_links(script.read_text(encoding="utf-8")), encoding="utf-8")
    found = docs / "search.json"
    if found.exists():
        entries = json.loads(found.read_text(encoding="utf-8"))
        found.write_text(json.dumps(index(book, entries, pages)), encoding="utf-8")
