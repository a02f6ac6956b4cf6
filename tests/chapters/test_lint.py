"""Defects that a machine can find. Taste, lengths and counts are no business of a lint."""

import ast
import json
import re
from collections import Counter

import pytest
import yaml
from course import NBS, ROOT, Notebook, chapters, engine, lessons, notebooks, seconds, solutions

ids = lambda path: path.stem
every_lesson = pytest.mark.parametrize("path", lessons(), ids=ids)
every_chapter = pytest.mark.parametrize("path", chapters(), ids=ids)
every_notebook = pytest.mark.parametrize("path", notebooks(), ids=ids)
every_solution = pytest.mark.parametrize("path", solutions(), ids=ids)

MACHINE_PATH = re.compile(r"/(?:work|root|tmp|home|Users|usr)/|site-packages/|\\\\Users\\\\")
FRONT = ["level", "time to read", "runs on", "needs"]


# What every notebook has


def test_there_are_chapters():
    assert len(lessons()) >= 21 and len(engine()) >= 1


@every_chapter
def test_title_cell(path):
    title = Notebook(path).cells[0]["text"].splitlines()
    rest = [line for line in title if line.strip()]
    assert rest[0].startswith("# ") and rest[1].startswith("> ")
    keys = [re.match(r"- ([\w ]+):", line) for line in rest[2:]]
    assert all(keys), "the title cell holds only the title, the subtitle and `- key: value` lines"
    assert [k.group(1) for k in keys] == FRONT


@every_notebook
def test_metadata(path):
    nb = json.loads(path.read_text(encoding="utf-8"))
    assert set(nb["metadata"]) == {"kernelspec"}
    assert nb["metadata"]["kernelspec"]["name"] == "python3"
    assert all(not cell["metadata"] for cell in nb["cells"])
    front = [x[2:] for x in "".join(nb["cells"][0]["source"]).splitlines() if x.startswith("- ")]
    assert yaml.safe_load("\n".join(front)), "nbdev reads the title cell's lines as YAML"


@every_notebook
def test_measured_cost(path):
    title = Notebook(path).cells[0]["text"]
    runs_on = re.search(r"^- runs on: CPU (\d+) s, peak ([\d,]+) MB", title, re.M)
    assert runs_on, "execute it with `make run-notebooks`, which measures"
    assert 0 < int(runs_on.group(1)) < 60


@every_chapter
def test_exports_one_module(path):
    code = Notebook(path).code_text
    assert len(re.findall(r"^#\|\s*default_exp\s+\S+", code, re.M)) == 1
    assert Notebook(path).module.split(".")[-1] == path.stem.split("_", 1)[1]


@every_lesson
def test_objectives_name_their_proof(path):
    """Each objective names the exercise, the test or the section that shows that it is reached."""
    items = re.findall(r"^[-*] .*(?:\n  .*)*", Notebook(path).section("You will be able to"), re.M)
    assert items
    assert all(re.search(r"[Ee]xercise|test|[Ll]isten|section", item) for item in items)


@every_lesson
def test_can_be_heard_and_seen(path):
    notebook = Notebook(path)
    clips = notebook.clips()
    assert clips, "a chapter that cannot be heard"
    assert all(mime == "audio/mpeg" for _, mime in clips)
    assert all(0.2 < seconds(clip) <= 12.2 for clip, _ in clips)
    assert any("image/" in str(list(out.get("data", {}))) for _, out in notebook.outputs())


@every_lesson
def test_further_reading_has_years(path):
    items = re.findall(r"^[-*\d.]+ .+(?:\n  .*)*", Notebook(path).section("Further reading"), re.M)
    assert items and all(re.search(r"\b(19|20)\d\d\b", item) for item in items)


# Defects of the text


@every_notebook
def test_no_sentence_comes_twice(path):
    prose = re.sub(r"```.*?```|\$\$.*?\$\$", " ", Notebook(path).text, flags=re.S)
    plain = re.sub(r"^[#>|*-].*$", " ", prose, flags=re.M)
    found = Counter(s.strip() for s in re.split(r"(?<=[.?!])\s+", plain) if len(s.split()) > 5)
    assert not [s for s, n in found.items() if n > 1]


@every_notebook
def test_what_is_announced_comes(path):
    """A text that ends in a colon is followed by code that is not empty."""
    cells = Notebook(path).cells
    for here, after in zip(cells, [*cells[1:], None]):
        if here["cell_type"] == "markdown" and here["text"].rstrip().endswith(":"):
            last = here["text"].rstrip().splitlines()[-1]
            comes = after and after["cell_type"] == "code" and after["text"].strip()
            assert comes, last


@every_notebook
def test_players_appear(path):
    """A cell shows what its last line returns; a player before that is built for nobody."""
    for cell in Notebook(path).cells:
        if cell["cell_type"] == "code" and "listen(" in cell["text"]:
            *before, _ = ast.parse(re.sub(r"^[%!].*$", "pass", cell["text"], flags=re.M)).body
            lost = [line for line in before if ast.unparse(line).startswith("listen(")]
            assert not lost, ast.unparse(lost[0])


@every_notebook
def test_no_cell_is_empty(path):
    full = all(cell["text"].strip() for cell in Notebook(path).cells)
    assert full


@every_notebook
def test_equations_that_are_named_exist(path):
    """An equation is numbered with \\tag{n}; a solution may name those of its chapter."""
    text = Notebook(path).text
    twin = [p for p in lessons() if p.name == path.name]
    source = "\n".join(c["text"] for p in {path, *twin} for c in Notebook(p).cells)
    have = set(re.findall(r"\\tag\{(\d+)\}", source)) | set(re.findall(r"\((\d+)\)\s*\$\$", source))
    want = set(re.findall(r"[Ee]quations? \((\d+)\)", text))
    assert not want - have


@every_notebook
def test_chapters_that_are_named_exist(path):
    have = {int(p.name[:2]) for p in chapters()}
    home = Notebook(NBS / "index.ipynb").text
    plan = {int(n) for n in re.findall(r"\| (\d\d) [^|]*\(to come\)", home)}
    want = {int(n) for n in re.findall(r"\b[Cc]hapter (\d{1,2})\b", Notebook(path).text)}
    assert not want - have - plan


@every_notebook
def test_exercises_that_are_named_exist(path):
    """Exercise n.k stands in chapter n under a heading of its own."""
    headings = {
        m for p in lessons() for m in re.findall(r"^###? .*?\b(\d+\.\d)\b", Notebook(p).text, re.M)
    }
    want = set(re.findall(r"\b[Ee]xercise (\d+\.\d)\b", Notebook(path).text))
    assert not want - headings


@every_lesson
def test_exercises_are_whole(path):
    """Each exercise says how hard it is and how long it takes, has a hint, and a solution."""
    notebook, number = Notebook(path), str(int(path.name[:2]))
    solved = Notebook(path.parent.parent / "solutions" / path.name)
    parts = re.split(rf"^(###? .*?\b{number}\.\d\b.*)$", notebook.text, flags=re.M)
    assert len(parts) > 2, "a chapter without exercises"
    for heading, body in zip(parts[1::2], parts[2::2]):
        assert re.search(r"difficulty:? *[1-5]", heading + body, re.I), heading
        assert re.search(r"\d+ min", heading + body), heading
        assert re.search(r"hint", body, re.I), heading
        which = re.search(rf"\b{number}\.\d\b", heading).group()
        assert re.search(rf"^##+ .*\b{re.escape(which)}\b", solved.text, re.M), heading


@every_notebook
def test_links_resolve(path):
    for target in re.findall(r"\]\(([^)#\s]+)", Notebook(path).text):
        if not re.match(r"https?://|mailto:", target):
            assert (path.parent / target).exists(), target


# Defects of the outputs


@every_notebook
def test_outputs_are_clean(path):
    for cell, out in Notebook(path).outputs():
        assert out["output_type"] != "error", cell["text"][:80]
        assert out.get("name") != "stderr", "".join(out.get("text", ""))[:200]
        data = out.get("data", {})
        shown = "".join(out.get("text", "")) + "".join(
            "".join(v) for k, v in data.items() if k.startswith("text/")
        )
        shown = re.sub(r"base64,[^\"')]+", "", shown)
        assert not MACHINE_PATH.search(shown), MACHINE_PATH.search(shown)
        assert "Warning" not in shown, shown[:200]
        assert not re.search(r" at 0x[0-9a-f]{6}", shown), shown[:200]
        assert "widget-view" not in str(list(data)), "a widget without its state is no output"


@every_notebook
def test_outputs_are_from_one_run(path):
    counts = [c["execution_count"] for c in Notebook(path).code]
    assert counts == list(range(1, len(counts) + 1)), "execute it from top to bottom"


@every_notebook
def test_size(path):
    assert path.stat().st_size < 2_500_000


@every_notebook
def test_figures_say_what_they_show(path):
    for cell in Notebook(path).code:
        if any(key.startswith("image/") for out in cell["outputs"] for key in out.get("data", {})):
            assert re.search(r'^#\|\s*fig-alt:\s*".{20,}"', cell["text"], re.M), cell["text"][:80]


# Defects of the code


def imported(code: str) -> set[str]:
    """The modules of this package that a piece of code imports from."""
    found = set()
    for node in ast.walk(ast.parse(re.sub(r"^\s*[%!].*$", "", code, flags=re.M))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sepbook"):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("sepbook")}
    return found


@every_chapter
def test_imports_only_what_came_before(path):
    """Engine modules import each other (face, experiments: all), lessons what came before."""
    order = [Notebook(p).module for p in lessons()]
    rooms = {Notebook(p).module for p in engine()}
    mine = Notebook(path).module
    known = rooms if mine in rooms else rooms | set(order[: order.index(mine) + 1])
    known |= set(order) | {"sepbook.models"} if mine.endswith((".face", ".experiments")) else set()
    known |= {"sepbook", f"sepbook.exercises.{path.stem.split('_', 1)[1]}"}
    if "models" in mine:
        known |= {"sepbook.models"}
    code = Notebook(path).code_text
    late = imported(code) - known
    assert not late, late


@every_notebook
def test_imports_in_cells_of_their_own(path):
    """nbdev runs cells with imports when it makes the site: nothing else may stand in them."""
    for cell in Notebook(path).code:
        imports = [isinstance(n, ast.Import | ast.ImportFrom) for n in ast.parse(cell["text"]).body]
        assert all(imports) or not any(imports), cell["text"][:80]


@every_notebook
def test_exported_cells_stand_alone(path):
    for cell in Notebook(path).code:
        if re.search(r"^#\|\s*export", cell["text"], re.M):
            assert "import *" not in cell["text"]
            assert not re.search(r"^\s*(?:from|import) (?:fastcore|nbdev)", cell["text"], re.M)


@every_chapter
def test_classes_are_whole_and_shallow(path):
    """No chain of more than two classes, and no function that poses as a method."""
    name = Notebook(path).module
    tree = ast.parse((ROOT / (name.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    tops = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    bases = {
        n.name: [b.id for b in n.bases if isinstance(b, ast.Name)]
        for n in tops
        if isinstance(n, ast.ClassDef)
    }

    def chain(cls: str) -> list[str]:
        up = [b for b in bases.get(cls, []) if b in bases]
        return [cls, *(chain(up[0]) if up else [])]

    found = [" -> ".join(chain(cls)) for cls in bases if len(chain(cls)) > 2]
    for n in tops:
        if isinstance(n, ast.FunctionDef) and n.args.args:
            first = n.args.args[0]
            kind = getattr(first.annotation, "id", getattr(first.annotation, "value", None))
            private = n.name.startswith("_") and isinstance(kind, str) and kind in bases
            if first.arg == "self" or private:
                found.append(f"{n.name}({first.arg}: {kind}, ...)")
    assert not found, found
