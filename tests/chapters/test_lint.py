"""The house style, as far as a machine can check it: what every chapter has, and what none has."""

import ast
import json
import re
import statistics

import pytest
import yaml
from course import Notebook, chapters, lines, notebooks, seconds, solutions

ids = lambda path: path.stem
every_chapter = pytest.mark.parametrize("path", chapters(), ids=ids)
every_notebook = pytest.mark.parametrize("path", notebooks(), ids=ids)
every_solution = pytest.mark.parametrize("path", solutions(), ids=ids)

SECTIONS = [
    "you will be able to",
    "listen first",
    "the simplest attempt, and where it fails",
    "the idea",
    "assemble",
    "does it work?",
    "listen and compare",
    "what breaks",
    "summary",
    "exercises",
    "further reading",
]
MACHINE_PATH = re.compile(r"/(?:work|root|tmp|home|Users|usr)/|site-packages/|\\\\Users\\\\")
FRONT = ["level", "time to read", "runs on", "needs"]


def test_there_are_chapters():
    assert len(chapters()) >= 6


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
    assert (
        set(nb["metadata"]) == {"kernelspec"} and nb["metadata"]["kernelspec"]["name"] == "python3"
    )
    assert all(not cell["metadata"] for cell in nb["cells"])
    front = [x[2:] for x in "".join(nb["cells"][0]["source"]).splitlines() if x.startswith("- ")]
    assert yaml.safe_load("\n".join(front)), "nbdev reads the title cell's lines as YAML"


@every_notebook
def test_measured_cost(path):
    runs_on = re.search(
        r"^- runs on: CPU (\d+) s, peak ([\d,]+) MB", Notebook(path).cells[0]["text"], re.M
    )
    assert runs_on, "execute it with `make run-notebooks`, which measures"
    assert 0 < int(runs_on.group(1)) < 60


@every_chapter
def test_sections_in_order(path):
    found = [h for h in Notebook(path).headings if h in SECTIONS]
    assert found == SECTIONS


@every_chapter
def test_networks_are_trained_for_real(path):
    """A chapter that builds a network trains it, right after showing that it works."""
    headings = Notebook(path).headings
    real = "train it for real"
    if path.parent.name[0] in "345":
        assert real in headings
    if real in headings:
        assert headings.index("does it work?") < headings.index(real)
        assert headings.index(real) < headings.index("listen and compare")


@every_chapter
def test_length_of_the_text(path):
    """800 to 2,500 words, not counting formulas, tables, exercises and the reading list."""
    text = Notebook(path).text.split("\n## Exercises")[0]
    text = re.sub(r"\$\$.*?\$\$|^\|[^\n]*$", " ", text, flags=re.S | re.M)
    assert 800 <= len(text.split()) <= 2500, f"{len(text.split())} words"


@every_chapter
def test_objectives_name_their_proof(path):
    items = re.findall(r"^[-*] .*(?:\n  .*)*", Notebook(path).section("You will be able to"), re.M)
    assert 3 <= len(items) <= 6
    assert all(re.search(r"[Ee]xercise|test", item) for item in items)


@every_chapter
def test_exports_one_module(path):
    targets = re.findall(
        r"^#\|\s*default_exp\s+(\S+)", "\n".join(c["text"] for c in Notebook(path).code), re.M
    )
    assert len(targets) == 1
    assert targets[0].split(".")[-1] == path.stem[3:]


@every_chapter
def test_cells_are_small(path):
    counts = sorted(lines(c) for c in Notebook(path).code)
    assert statistics.median(counts) <= 6
    assert counts[int(0.9 * (len(counts) - 1))] <= 15
    assert counts[-1] <= 30


@every_chapter
def test_prose_between_code(path):
    run = 0
    for cell in Notebook(path).cells:
        code = cell["cell_type"] == "code" and cell["text"].strip()
        run = run + 1 if code else 0
        assert run <= 3, f"four code cells in a row: {cell['text'][:60]!r}"


@every_notebook
def test_imports_in_cells_of_their_own(path):
    for cell in Notebook(path).code:
        body = ast.parse(cell["text"]).body
        imports = [isinstance(node, ast.Import | ast.ImportFrom) for node in body]
        assert all(imports) or not any(imports), cell["text"][:80]


@every_notebook
def test_exported_cells_stand_alone(path):
    for cell in Notebook(path).code:
        if re.search(r"^#\|\s*export", cell["text"], re.M):
            assert "import *" not in cell["text"]
            assert not re.search(r"^\s*(?:from|import) (?:fastcore|nbdev)", cell["text"], re.M)


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
    assert path.stat().st_size < 1_000_000


@every_chapter
def test_figures(path):
    figures = 0
    for cell in Notebook(path).code:
        images = [
            o
            for o in cell.get("outputs", [])
            if any(k.startswith("image/") for k in o.get("data", {}))
        ]
        figures += len(images)
        if images:
            assert re.search(r'^#\|\s*fig-alt:\s*".{20,}"', cell["text"], re.M), cell["text"][:80]
    assert 1 <= figures <= 8


@every_chapter
def test_sound(path):
    clips = Notebook(path).clips()
    assert clips, "a chapter that cannot be heard"
    assert all(mime == "audio/mpeg" for _, mime in clips)
    assert all(0.2 < seconds(clip) <= 6.2 for clip, _ in clips)


@every_chapter
def test_has_tests(path):
    code = "\n".join(c["text"] for c in Notebook(path).code)
    assert len(re.findall(r"^\s*assert |assert_close", code, re.M)) >= 5


@every_chapter
def test_exercises(path):
    text = Notebook(path).section("Exercises")
    found = re.findall(r"^### .*$", text, re.M)
    assert 4 <= len(found) <= 6
    number = str(int(path.name[:2]))
    for k, heading in enumerate(found, start=1):
        assert re.search(rf"\b{number}\.{k}\b", heading), heading
        body = heading + text.split(heading, 1)[1].split("\n### ")[0]
        assert re.search(r"difficulty:? *[1-5]", body, re.I), heading
        assert re.search(r"\d+ min", body), heading
        assert re.search(r"hint", body, re.I), heading


@every_chapter
def test_solutions_exist(path):
    twin = path.parent.parent / "solutions" / path.name
    assert twin.exists()
    number = str(int(path.name[:2]))
    wanted = len(re.findall(r"^### ", Notebook(path).section("Exercises"), re.M))
    for k in range(1, wanted + 1):
        assert re.search(rf"^##+ .*\b{number}\.{k}\b", Notebook(twin).text, re.M), (
            f"no solution {k}"
        )


@every_chapter
def test_further_reading_has_years(path):
    items = re.findall(r"^[-*\d.]+ .+(?:\n  .*)*", Notebook(path).section("Further reading"), re.M)
    assert len(items) >= 3
    assert all(re.search(r"\b(19|20)\d\d\b", item) for item in items)


@every_notebook
def test_links_resolve(path):
    for target in re.findall(r"\]\(([^)#\s]+)", Notebook(path).text):
        if not re.match(r"https?://|mailto:", target):
            assert (path.parent / target).exists(), target


@every_notebook
def test_plain_words(path):
    text = Notebook(path).text.lower()
    for word in (
        "delve",
        "leverage",
        "cutting-edge",
        "simplified for brevity",
        "todo",
        "lorem ipsum",
    ):
        assert word not in text, word
