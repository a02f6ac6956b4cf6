"""Code: whole, folded where it is long, with a table of parameters below what others call."""

import ast
import os
import re
from html import escape

from .book import Book, Definition, Page, Parameter

FEW = 5  # lines of imports that a reader need not pass over
LONG = 30  # lines; what is longer is folded, closed
DIRECTIVE = re.compile(r"^#\|.*$", re.M)
OURS = re.compile(r"^#\|\s*(?:export\w*|default_exp|hide|cuda|slow|net)\b.*\n?", re.M)


def names_in(source: str) -> list[str]:
    """The functions and classes that a cell defines."""
    plain = re.sub(r"^\s*[%!].*$", "", source, flags=re.M)
    kinds = ast.FunctionDef | ast.ClassDef
    return [n.name for n in ast.parse(plain).body if isinstance(n, kinds)]


def only_imports(code: str) -> bool:
    """Whether a cell does nothing but import."""
    plain = re.sub(r"^\s*[%!].*$", "", code, flags=re.M)
    return all(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.parse(plain).body)


def is_exported(source: str) -> bool:
    return bool(re.search(r"^#\|\s*export\b", source, re.M))


def shown(source: str) -> str:
    """The cell's source for Quarto: nbdev's directives gone, long definitions folded."""
    text = OURS.sub("", source).strip("\n")
    code = DIRECTIVE.sub("", text).strip("\n")
    if not code:
        return ""
    lines, names = code.count("\n") + 1, names_in(code)
    if lines > LONG and names and "echo: false" not in text:
        words = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        text = f'#| code-fold: true\n#| code-summary: "{words}: {lines} lines"\n{text}'
    elif lines > FEW and only_imports(code) and "echo: false" not in text:
        text = f'#| code-fold: true\n#| code-summary: "imports: {lines} lines"\n{text}'
    return text


def rich(text: str) -> str:
    """A comment or docstring as HTML: back-ticks are code, and nothing else is special."""
    return re.sub(r"`+([^`]+)`+", r"<code>\1</code>", escape(text, quote=False))


def row(p: Parameter) -> str:
    kind = f"<code>{escape(p.kind)}</code>" if p.kind else ""
    default = f"<code>{escape(p.default)}</code>" if p.default else ""
    name = escape(p.name) if p.name == "returns" else f"<code>{escape(p.name)}</code>"
    cells = "".join(f"<td>{x}</td>" for x in (kind, default, rich(p.about)))
    return f'<tr><th scope="row">{name}</th>{cells}</tr>'


def table(d: Definition) -> str:
    rows = "".join(row(p) for p in [*d.parameters, *([d.returns] if d.returns else [])])
    if not rows:
        return '<p class="none">No parameters.</p>'
    head = "".join(
        f'<th scope="col">{x}</th>' for x in ("Parameter", "Type", "Default", "What it is")
    )
    return (
        '<div class="scrolls"><table class="parameters" data-quarto-disable-processing="true">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


class Reference:
    """The tables below an exported cell."""

    def __init__(self, book: Book, page: Page):
        self.book, self.page = book, page

    def source_link(self, d: Definition) -> str:
        s = self.book.settings
        path = d.module.replace(".", "/")
        return f"{s['git_url']}/blob/{s['branch']}/{path}.py#L{d.line}"

    def block(self, d: Definition, inner: bool = False) -> str:
        """One definition: its signature as the summary, then docstring, table, methods."""
        kind = "class" if d.is_class else "method" if inner else "def"
        first, _, rest = d.about.partition("\n\n")
        about = f"<p>{rich(first)}</p>" if first else ""
        if rest:
            about += f'<p class="more">{rich(rest.strip())}</p>'
        methods = "".join(self.block(m, True) for m in d.methods)
        if methods:
            methods = f'<p class="methods">Methods</p>{methods}'
        what = "parameters and methods" if d.methods else "parameters"
        source = (
            f'<a class="source" href="{self.source_link(d)}" '
            f'aria-label="Source of {escape(d.name)}">source</a>'
        )
        # an empty line would end the block for the Markdown reader
        about = about.replace("\n\n", "<br>")
        return (
            f'<details class="definition" id="{d.anchor}"><summary>'
            f'<span class="kind">{kind}</span> <code>{escape(d.signature)}</code>'
            f'<span class="visually-hidden"> {what}</span></summary>'
            f"{about}{table(d)}<p>{source}</p>{methods}</details>"
        )

    def __call__(self, source: str) -> str:
        """What is told below an exported cell; empty if it defines nothing public."""
        known = self.book.sources.get(self.page.module)
        if not known or not is_exported(source):
            return ""
        found = [known.definitions[n] for n in names_in(source) if n in known.definitions]
        if not found:
            return ""
        blocks = "\n".join(self.block(d) for d in found)
        return f'```{{=html}}\n<div class="definitions">\n{blocks}\n</div>\n```'


def relative(page: Page, target: str) -> str:
    """A path of the site, seen from a page."""
    return os.path.relpath(target, os.path.dirname(page.name) or ".").replace(os.sep, "/")
