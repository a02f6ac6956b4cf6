"""What the site knows of the course: its pages, their numbers, and what the package defines."""

import ast
import json
import re
import tokenize
from configparser import ConfigParser
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .bibliography import Bibliography

# A folder below nbs/, its letter and its name, in reading order.
PARTS = {
    "1_foundations": ("A", "Foundations"),
    "2_classical": ("B", "Classical separation"),
    "3_masking": ("C", "Masking networks"),
    "4_waveform": ("D", "Waveform networks"),
    "5_bands": ("E", "Bands"),
    "6_practice": ("F", "Practice"),
    "7_engine": ("G", "Engine room"),
    "solutions": ("H", "Solutions"),
}
EQUATION = re.compile(r"\$\$((?:(?!\$\$).)+?)\s*\\tag\{(\d+)\}((?:(?!\$\$).)*?)\$\$", re.S)
EXERCISE = re.compile(r"^(#{2,4}) (.*?\b(\d+\.\d+)\b.*)$", re.M)


@dataclass
class Parameter:
    """An argument, or what is returned, as a table shows it."""

    name: str
    kind: str = ""
    default: str = ""
    about: str = ""


@dataclass
class Definition:
    """A public function, class or method."""

    name: str  # stft; Learner.fit
    module: str  # sepbook.stft
    line: int
    about: str
    parameters: list[Parameter]
    returns: Parameter | None = None
    methods: list["Definition"] = field(default_factory=list)
    is_class: bool = False

    @property
    def anchor(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def signature(self) -> str:
        inside = [p.name + (f"={p.default}" if p.default else "") for p in self.parameters]
        return f"{self.name}({', '.join(inside)})"


class Source:
    """A module's definitions, read from its text: nothing is run."""

    def __init__(self, path: Path, module: str):
        self.module = module
        with open(path, "rb") as file:
            tokens = list(tokenize.tokenize(file.readline))
        self.comments = {
            t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT
        }
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.public = self._public()
        found = [n for n in self.tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        self.definitions = {n.name: self._definition(n) for n in found if n.name in self.public}

    def _public(self) -> list[str]:
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                return ast.literal_eval(node.value)
        return []

    def _definition(self, node, owner: str = "") -> Definition:
        about = ast.get_docstring(node) or ""
        name = f"{owner}.{node.name}" if owner else node.name
        if isinstance(node, ast.FunctionDef):
            return Definition(
                name, self.module, node.lineno, about, *self._signature(node, bool(owner))
            )
        functions = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
        init = functions.get("__init__")
        parameters = self._signature(init, True)[0] if init else self._fields(node)
        methods = [
            self._definition(f, name)
            for n, f in functions.items()
            if (n[0] != "_" or n == "__call__") and not self._is_property(f)
        ]
        return Definition(
            name, self.module, node.lineno, about, parameters, None, methods, is_class=True
        )

    @staticmethod
    def _is_property(node) -> bool:
        return any("property" in ast.unparse(d) for d in node.decorator_list)

    def _fields(self, node) -> list[Parameter]:
        """The fields of a dataclass."""
        if not any("dataclass" in ast.unparse(d) for d in node.decorator_list):
            return []
        return [
            Parameter(
                n.target.id,
                ast.unparse(n.annotation),
                ast.unparse(n.value) if n.value else "",
                self.comments.get(n.end_lineno, ""),
            )
            for n in node.body
            if isinstance(n, ast.AnnAssign)
        ]

    def _signature(self, node, method: bool) -> tuple[list[Parameter], Parameter | None]:
        a = node.args
        given = a.posonlyargs + a.args
        defaults = [None] * (len(given) - len(a.defaults)) + a.defaults
        static = any("staticmethod" in ast.unparse(d) for d in node.decorator_list)
        pairs = list(zip(given, defaults))[1 if method and not static else 0 :]
        named = [("", arg, value) for arg, value in pairs]
        if a.vararg:
            named.append(("*", a.vararg, None))
        named += [("", arg, value) for arg, value in zip(a.kwonlyargs, a.kw_defaults)]
        if a.kwarg:
            named.append(("**", a.kwarg, None))
        lines = [arg.end_lineno for _, arg, _ in named]
        found = [
            Parameter(
                stars + arg.arg,
                ast.unparse(arg.annotation) if arg.annotation else "",
                ast.unparse(value) if value else "",
                # a comment belongs to a parameter that has a line of its own
                self.comments.get((value or arg).end_lineno, "")
                if lines.count(arg.end_lineno) == 1 and arg.lineno > node.lineno
                else "",
            )
            for stars, arg, value in named
        ]
        back = None
        if node.returns is not None and ast.unparse(node.returns) != "None":
            about = self.comments.get(node.returns.end_lineno, "")
            back = Parameter("returns", ast.unparse(node.returns), "", about)
        return found, back


class Page:
    """A notebook: where it is, what it is called, what it holds."""

    def __init__(self, path: Path, nbs: Path):
        self.path, self.name = path, path.relative_to(nbs).as_posix()
        self.nb = json.loads(path.read_text(encoding="utf-8"))
        self.cells = self.nb["cells"]
        for cell in self.cells:
            cell["source"] = "".join(cell["source"])
        self.folder = path.parent.name if path.parent != nbs else ""
        number = re.match(r"(\d+)_", path.name)
        self.number = number.group(1).lstrip("0") if number and self.folder in PARTS else ""
        self.is_solution = self.folder == "solutions"
        first = self.cells[0]["source"] if self.cells else ""
        title = re.search(r"^# (.+)$", first, re.M)
        self.plain_title = title.group(1).strip() if title else path.stem
        about = re.search(r"^> (.+)$", first, re.M)
        self.about = about.group(1).strip() if about else ""
        self.front = dict(re.findall(r"^- ([\w ]+): (.+)$", first, re.M))
        code = "\n".join(c["source"] for c in self.cells if c["cell_type"] == "code")
        module = re.search(r"^#\|\s*default_exp\s+(\S+)", code, re.M)
        self.module = f"sepbook.{module.group(1)}" if module else ""
        self.code = code

    @property
    def short_title(self) -> str:
        """As the sidebar has it: 13 Non-negative matrix factorisation."""
        name = re.sub(r"^Solutions: ", "", self.plain_title)
        return f"{self.number} {name[0].upper()}{name[1:]}".strip()

    @property
    def title(self) -> str:
        if self.is_solution and self.number:
            return self.plain_title.replace("Solutions:", f"Solutions {self.number}:")
        return f"{self.number} {self.plain_title}".strip()

    @property
    def output(self) -> str:
        """The file name of the page: stft.html."""
        return re.sub(r"^\d+_", "", self.path.stem) + ".html"

    @property
    def url(self) -> str:
        """Where the page is on the site."""
        return f"{self.folder}/{self.output}".lstrip("/")

    @property
    def order(self) -> tuple:
        """Parts in their order; 90 before 901 before 91."""
        part = list(PARTS).index(self.folder) if self.folder in PARTS else -1
        return part, self.path.name.split("_")[0] if self.number else self.path.name

    @cached_property
    def equations(self) -> set[str]:
        return {m.group(2) for m in EQUATION.finditer(self.text)}

    @cached_property
    def exercises(self) -> set[str]:
        return {m.group(3) for m in EXERCISE.finditer(self.text)}

    @property
    def text(self) -> str:
        return "\n\n".join(c["source"] for c in self.cells if c["cell_type"] == "markdown")

    @cached_property
    def trees(self) -> list[ast.Module]:
        found = []
        for cell in self.cells:
            if cell["cell_type"] == "code":
                plain = re.sub(r"^\s*[%!].*$", "", cell["source"], flags=re.M)
                found.append(ast.parse(plain))
        return found

    @cached_property
    def imports(self) -> dict[str, str]:
        """Names that the notebook imports from the package, and from which module."""
        found = {}
        for tree in self.trees:
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sepbook"):
                    found |= {a.asname or a.name: node.module for a in node.names}
        return found

    @cached_property
    def variables(self) -> set[str]:
        """Names that its cells give to something of their own."""
        names = set()
        for tree in self.trees:
            for node in ast.walk(tree):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
                elif isinstance(node, ast.arg):
                    names.add(node.arg)
        return names


class Written(Page):
    """A page that is no notebook: a .qmd below nbs/."""

    def __init__(self, path: Path, nbs: Path):
        self.path, self.name = path, path.relative_to(nbs).as_posix()
        self.folder = path.parent.name if path.parent != nbs else ""
        self.number, self.module, self.is_solution, self.cells = "", "", False, []


class Book:
    """The whole course."""

    def __init__(self, root: Path):
        self.root, self.nbs = root, root / "nbs"
        config = ConfigParser(delimiters=["="])
        config.read(root / "settings.ini", encoding="utf-8")
        self.settings = config["DEFAULT"]
        skip = {".ipynb_checkpoints", "_proc", "_docs"}
        paths = [p for p in self.nbs.rglob("*.ipynb") if not skip & set(p.parts)]
        self.pages = sorted((Page(p, self.nbs) for p in paths), key=lambda p: p.order)
        self.by_name = {p.name: p for p in self.pages}
        self.chapters = {p.number: p for p in self.pages if p.number and not p.is_solution}
        self.modules = {p.module: p for p in self.pages if p.module}
        self.sources = {
            module: Source(path, module)
            for module in self.modules
            if (path := root / (module.replace(".", "/") + ".py")).exists()
        }
        self.places = {}
        for source in self.sources.values():
            for definition in source.definitions.values():
                self.places.setdefault(definition.name, []).append(definition)
        self.bibliography = Bibliography(self.nbs / "reference/references.bib")
        self.exercise_pages = {
            number: page
            for page in self.pages
            if not page.is_solution and page.number
            for number in page.exercises
        }

    def solutions(self, page: Page) -> Page | None:
        """The solutions of a chapter, or the chapter of solutions."""
        if page.is_solution:
            found = self.chapters.get(page.number)
            return found if found and found.path.name == page.path.name else None
        return self.by_name.get(f"solutions/{page.path.name}")

    def find(self, name: str, page: Page) -> Definition | None:
        """What `name` means on `page`: defined or imported there, or one of a kind."""
        parts = name.removesuffix("()").split(".")
        if parts[0] == "sepbook" and len(parts) > 1:
            return self._qualified(parts)
        head, rest = parts[0], parts[1:]
        module = page.imports.get(head)
        home = self.sources.get(page.module)
        found = home.definitions.get(head) if home else None
        found = found or (self._follow(module, head) if module else None)
        if found is None and head not in page.variables and re.search(r"[A-Z_]", head.strip("_")):
            places = self.places.get(head, [])
            found = places[0] if len(places) == 1 else None
        return self._method(found, rest) if found else None

    def _qualified(self, parts: list[str]) -> Definition | None:
        for cut in range(len(parts) - 1, 0, -1):
            found = self._follow(".".join(parts[:cut]), parts[cut])
            if found:
                return self._method(found, parts[cut + 1 :])
        return None

    def _follow(self, module: str, name: str, depth: int = 4) -> Definition | None:
        """Where `from module import name` leads to, through imports of imports."""
        source = self.sources.get(module)
        if source and name in source.definitions:
            return source.definitions[name]
        path = self.root / module.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if not depth or not file.exists():
            return None
        package = module.split(".") if path.is_dir() else module.split(".")[:-1]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and any(a.name == name for a in node.names):
                up = package[: len(package) - node.level + 1] if node.level else []
                target = ".".join([*up, *(node.module or "").split(".")]).strip(".")
                if target.startswith("sepbook") and target != module:
                    return self._follow(target, name, depth - 1)
        return None

    @staticmethod
    def _method(found: Definition, rest: list[str]) -> Definition | None:
        if not rest:
            return found
        wanted = ".".join([found.name, *rest])
        return next((m for m in found.methods if m.name == wanted), None)

    def page_of(self, definition: Definition) -> Page:
        return self.modules[definition.module]
