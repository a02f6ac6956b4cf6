"""Prose: equations that can be clicked, and links where a text names something."""

import os
import re

from .bibliography import cited
from .book import EQUATION, EXERCISE, Book, Page

# What no link may be put into: code, formulas, links, headings, tags.
KEPT = re.compile(
    r"^(?:```|~~~).*?^(?:```|~~~)[ \t]*$|^\s*<(?:style|script).*?</(?:style|script)>"
    r"|<summary>.*?</summary>|``.+?``|`[^`\n]+`|\$\$.*?\$\$|\$[^$\n]+\$"
    r"|!?\[(?:[^\[\]]|\[[^\]]*\])*\]\([^)\n]*\)|<[^>\n]+>"
    r"|^#{1,6} [^\n]*$|\{[#.][^}\n]*\}|^:::[^\n]*$",
    re.S | re.M,
)
NUMBERS = r"\d{1,3}(?:(?:, and |, or |, | and | to | or |-)\d{1,3})*"
CHAPTER = re.compile(rf"\b([Cc]hapters?)( |\u00a0)({NUMBERS})\b(?!\.\d)")
EXERCISES = re.compile(
    r"\b([Ee]xercises?)( )(\d{1,2}\.\d{1,2}(?:(?:, and |, | and | to | or )\d{1,2}\.\d{1,2})*)\b"
)
EQUATIONS = re.compile(
    r"\b([Ee]quations?)( )(\(\d{1,2}\)(?:(?:, and |, | and | to | or )\(\d{1,2}\))*"
    r"|(?<=\([Ee]quation )\d{1,2}(?![\d.])|(?<=\([Ee]quations )\d{1,2} and \d{1,2})"
)
OF_CHAPTER = re.compile(r"\s*(?:\)\s*)?(?:of|in|from)\s+\[?[Cc]hapter (\d{1,3})")
NAME = re.compile(r"`([A-Za-z_][\w.]*?(?:\(\))?)`")


def pieces(text: str):
    """The text in order, as (piece, may it be changed?, where it begins)."""
    at = 0
    for kept in KEPT.finditer(text):
        if kept.start() > at:
            yield text[at : kept.start()], True, at
        yield kept.group(), False, kept.start()
        at = kept.end()
    if at < len(text):
        yield text[at:], True, at


def link(page: Page, target: Page, anchor: str = "") -> str:
    """A relative address from one page to another."""
    tail = f"#{anchor}" if anchor else ""
    if page is target:
        return tail or "#"
    path = os.path.relpath(target.name, os.path.dirname(page.name) or ".")
    return path.replace(os.sep, "/") + tail


def elsewhere(text: str, at: int) -> bool:
    """Is the chapter named at `at` one of somebody's book: Wiley, 2018. Chapter 1 ...?"""
    return bool(re.search(r"\b(?:19|20)\d\d[:,.]\s*$", text[:at].rsplit("\n", 1)[-1]))


def each_number(words: re.Match, pattern: str, where) -> str:
    """`chapters 2 and 5` with a link on every number, or on all of `chapter 2`."""
    word, gap, numbers = words.group(1), words.group(2), words.group(3)
    found = re.findall(pattern, numbers)
    targets = [where(n.strip("()")) for n in found]
    if len(found) == 1:
        return f"[{words.group()}]({targets[0]})" if targets[0] else words.group()
    swap = iter(targets)

    def one(m):
        target = next(swap)
        return f"[{m.group()}]({target})" if target else m.group()

    return word + gap + re.sub(pattern, one, numbers)


class Prose:
    """The text of one page with its links."""

    def __init__(self, book: Book, page: Page):
        self.book, self.page = book, page
        twin = book.solutions(page) if page.is_solution else None
        self.equation_homes = [p for p in (page, twin) if p]
        self.reading = False  # inside "Further reading"

    def __call__(self, text: str) -> str:
        changes = (self.citations, self.headings, self.solutions, self.references, self.names)
        for change in (*changes, self.equations):
            text = change(text)
        return text

    # reading lists

    def citations(self, text: str) -> str:
        """Entries of a reading list link to the bibliography."""
        lines, inside = text.split("\n"), self.reading
        for i, line in enumerate(lines):
            if re.match(r"#{1,6} ", line):
                inside = "further reading" in line.lower()
            elif inside and line.startswith("- "):
                lines[i] = cited(self.book.bibliography, line, self.page.folder)
        return "\n".join(lines)

    # equations

    def equations(self, text: str) -> str:
        """Each \\tag{n} becomes a number beside its formula: an anchor and a link to itself."""

        def shown(m):
            before, number, after = m.groups()
            look = f'.equation-number aria-label="Equation {number}"'
            return (
                f"\n\n::: {{.equation #equation-{number}}}\n\n$${before}{after}$$\n\n"
                f"[({number})](#equation-{number}){{{look}}}\n\n:::\n\n"
            )

        return re.sub(r"\n{3,}", "\n\n", EQUATION.sub(shown, text)).strip("\n")

    def equation_at(self, number: str, other: str | None) -> str | None:
        homes = [self.book.chapters[other]] if other in self.book.chapters else self.equation_homes
        for home in homes:
            if number in home.equations:
                return link(self.page, home, f"equation-{number}")
        return None

    # chapters, exercises, equations that are named

    def references(self, text: str) -> str:
        done = []
        for piece, free, at in pieces(text):
            if re.match(r"^## ", piece):
                self.reading = "further reading" in piece.lower()
            done.append(self._linked(piece, text, at) if free else piece)
        return "".join(done)

    def _linked(self, piece: str, text: str, at: int) -> str:
        book, page = self.book, self.page

        def chapter(m):
            if self.reading or elsewhere(text, at + m.start()):
                return m.group()
            where = lambda n: link(page, book.chapters[n]) if n in book.chapters else None
            return each_number(m, r"\d{1,3}", lambda n: where(n.lstrip("0")))

        def exercise(m):
            def where(number):
                home = page if number in page.exercises else book.exercise_pages.get(number)
                return link(page, home, f"exercise-{number.replace('.', '-')}") if home else None

            return each_number(m, r"\d{1,2}\.\d{1,2}", where)

        def equation(m):
            of = OF_CHAPTER.match(text[at + m.end() :])
            other = of.group(1).lstrip("0") if of else None
            return each_number(m, r"\(?\d{1,2}\)?", lambda n: self.equation_at(n, other))

        # each looks at the text as it was, so the positions hold; they match different words
        kinds = ((EQUATIONS, equation), (EXERCISES, exercise), (CHAPTER, chapter))
        found = [
            (m.start(), m.end(), change(m))
            for pattern, change in kinds
            for m in pattern.finditer(piece)
        ]
        for start, end, new in sorted(found, reverse=True):
            piece = piece[:start] + new + piece[end:]
        return piece

    def headings(self, text: str) -> str:
        """Exercises have anchors that do not depend on their names."""

        def anchored(m):
            if "{#" in m.group(2):
                return m.group()
            return f"{m.group(1)} {m.group(2)} {{#exercise-{m.group(3).replace('.', '-')}}}"

        return EXERCISE.sub(anchored, text)

    def solutions(self, text: str) -> str:
        """A link to the solutions leads to the exercise below whose heading it stands."""
        parts = re.split(r"(?=^#{2,4} )", text, flags=re.M)
        for i, part in enumerate(parts):
            named = re.search(r"\{#(exercise-[\d-]+)\}", part.split("\n", 1)[0])
            if not named:
                continue
            parts[i] = re.sub(
                r"(\]\((?:\.\./)?solutions/[\w.]+\.ipynb)\)", rf"\1#{named.group(1)})", part
            )
            twin = self.book.solutions(self.page) if self.page.is_solution else None
            if twin:
                head, _, rest = parts[i].partition("\n")
                back = link(self.page, twin, named.group(1))
                parts[i] = f"{head}\n\n[the exercise]({back}){{.back}}\n{rest}"
        return "".join(parts)

    # names of the package

    def names(self, text: str) -> str:
        """The first mention of a name in a cell links to its definition."""
        seen = set()

        def one(piece):
            m = NAME.fullmatch(piece)
            found = self.book.find(m.group(1), self.page) if m else None
            if not found or found.anchor in seen:
                return piece
            seen.add(found.anchor)
            return f"[{piece}]({link(self.page, self.book.page_of(found), found.anchor)})"

        return "".join(piece if free else one(piece) for piece, free, _ in pieces(text))
