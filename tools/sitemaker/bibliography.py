"""The bibliography: one file of works, a page made from it, and links from every reading list."""

import html
import os
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ADDRESS = re.compile(r"\]\((https?://[^\s]+?)\)(?=[^\w)]|$)")
PAGE = "reference/bibliography.qmd"


def plain(text: str) -> str:
    """Letters and digits only, without accents: what two spellings of a title share."""
    text = unicodedata.normalize("NFKD", text).lower()
    return re.sub(r"[^a-z0-9]", "", text)


def identifier(address: str) -> str:
    """The same for every address of one work: doi:10.1109/..., arxiv:1809.07454."""
    address = address.rstrip("/")
    doi = re.match(r"https?://(?:dx\.)?doi\.org/(.+)", address)
    arxiv = re.match(r"https?://arxiv\.org/(?:abs|pdf)/([\d.]+?)(?:v\d+)?(?:\.pdf)?$", address)
    return f"doi:{doi[1].lower()}" if doi else f"arxiv:{arxiv[1]}" if arxiv else address


@dataclass(eq=False)
class Work:
    """A book, an article, a program."""

    key: str  # luo2019convtasnet
    kind: str  # article, inproceedings, book, misc
    fields: dict[str, str]
    text: str  # as it stands in the file

    @cached_property
    def links(self) -> dict[str, str]:
        """What a link says and where it leads."""
        f, found = self.fields, {}
        if "doi" in f:
            found[f"doi:{f['doi']}"] = f"https://doi.org/{f['doi']}"
        if "eprint" in f:
            found[f"arXiv:{f['eprint']}"] = f"https://arxiv.org/abs/{f['eprint']}"
        if "url" in f:
            found[re.sub(r"https?://(?:www\.)?([^/]+).*", r"\1", f["url"])] = f["url"]
        return found

    @cached_property
    def identifiers(self) -> set[str]:
        return {identifier(address) for address in self.links.values()}

    @property
    def authors(self) -> list[str]:
        """As they are read: Y. Luo."""
        names = [n.strip() for n in self.fields["author"].split(" and ")]
        turned = [" ".join(reversed(n.split(", ", 1))) for n in names]
        return [n.strip("{}") if n != "others" else "et al." for n in turned]

    @property
    def short(self) -> str:
        """Luo and Mesgarani 2019, as a link to it says."""
        last = [n.split(", ")[0].strip("{}") for n in self.fields["author"].split(" and ")]
        who = last[0] if len(last) == 1 else f"{last[0]} and {last[1]}"
        who = f"{last[0]} et al." if len(last) > 2 or last[-1] == "others" else who
        return f"{who} {self.fields['year']}"

    @property
    def line(self) -> str:
        """Authors, title, where, year, links."""
        f = self.fields
        names = ", ".join(self.authors).replace(", et al.", " et al.")
        where = f.get("journal") or f.get("booktitle") or f.get("publisher") or ""
        volume = f" {f['volume']}" if "volume" in f else ""
        volume += f"({f['number']})" if "number" in f else ""
        place = f"*{where}*{volume}, " if where else ""
        links = ", ".join(f"[{text}]({address})" for text, address in self.links.items())
        return f"{names.rstrip('.')}. **{f['title']}**. {place}{f['year']}. {links}."


def works(path: Path) -> list[Work]:
    """The entries of a BibTeX file, in its order: `name = {value},` a line."""
    found = []
    for m in re.finditer(
        r"^@(\w+)\{([\w-]+),\n(.*?)^\}", path.read_text(encoding="utf-8"), re.S | re.M
    ):
        fields = dict(re.findall(r"^\s*(\w+) = \{(.*)\},$", m[3], re.M))
        found.append(Work(m[2], m[1], fields, m[0]))
    return found


class Bibliography:
    """Which work an entry of a reading list means."""

    def __init__(self, path: Path):
        self.works = works(path) if path.exists() else []
        self.by_identifier = {i: w for w in self.works for i in w.identifiers}
        # long titles first: one title may be the beginning of another
        titles = [(plain(w.fields["title"]), w) for w in self.works]
        self.titles = sorted((t for t in titles if len(t[0]) >= 20), key=lambda t: -len(t[0]))

    def named(self, entry: str) -> list[Work]:
        """The works that an entry names, by an address or else by the title."""
        addresses = [identifier(a) for a in ADDRESS.findall(entry)]
        found = [self.by_identifier[a] for a in addresses if a in self.by_identifier]
        rest = plain(ADDRESS.sub("]", entry))
        for title, work in [(plain(w.fields["title"]), w) for w in found] + self.titles:
            if title in rest:
                rest = rest.replace(title, "")
                found.append(work)
        for work in self.works:
            short = work.fields.get("shorttitle")
            if short and re.search(rf"\b{re.escape(short)}\b", entry):
                found.append(work)
        return list(dict.fromkeys(found))


def reading(text: str):
    """The entries of the reading lists in a text."""
    inside = False
    for line in text.splitlines():
        if re.match(r"#{1,6} ", line):
            inside = "further reading" in line.lower()
        elif inside and line.startswith("- "):
            yield line


def cited(bibliography: Bibliography, entry: str, folder: str) -> str:
    """An entry of a reading list with links to the bibliography at its end."""
    page = os.path.relpath(PAGE, folder or ".").replace(os.sep, "/")
    links = [f"[{w.short}]({page}#{w.key}){{.cite}}" for w in bibliography.named(entry)]
    return f"{entry} {' '.join(links)}" if links else entry


def listing(book) -> str:
    """The works by the first author's letter, each with the chapters that recommend it."""
    users = {}
    for page in book.chapters.values():
        for entry in reading(page.text):
            for work in book.bibliography.named(entry):
                users.setdefault(work.key, {})[page.name] = page.number
    pieces, letter = [], ""
    for work in sorted(book.bibliography.works, key=lambda w: (w.key[0], w.key)):
        if work.key[0] != letter:
            letter = work.key[0]
            pieces.append(f"## {letter.upper()}")
        links = ", ".join(f"[{n}](../{name})" for name, n in users.get(work.key, {}).items())
        where = f" Read in {'chapter' if links.count('[') == 1 else 'chapters'} {links}." * bool(
            links
        )
        code = f"<details><summary>BibTeX</summary><pre>{html.escape(work.text)}</pre></details>"
        code = f"```{{=html}}\n{code}\n```"
        pieces.append(f"::: {{.work #{work.key}}}\n{work.line}{where}\n\n{code}\n:::")
    return "\n\n".join(pieces)
