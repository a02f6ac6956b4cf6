"""The site before Quarto renders it: nothing is lost, all is numbered, links lead somewhere."""

import base64
import io
import json
import re
import sys
from collections import Counter

import numpy as np
import pytest
import soundfile as sf
import yaml
from course import NBS, ROOT, lessons, notebooks
from PIL import Image, ImageDraw

from sepbook.engine.show import player_assets

sys.path.insert(0, str(ROOT / "tools"))
from sitemaker.book import EQUATION, Book
from sitemaker.build import configuration
from sitemaker.finish import (
    definitions,
    index,
    labelled,
    with_bars,
    with_drawn_links,
    with_ours,
    with_tables,
    without_outside,
)
from sitemaker.home import outputs
from sitemaker.media import Media
from sitemaker.page import bare, processed
from sitemaker.reference import api
from sitemaker.text import CHAPTER, EQUATIONS, EXERCISES, Prose, elsewhere, pieces
from sitemaker.widgets import ASKS, SMALL

NAMES = [p.relative_to(NBS).as_posix() for p in notebooks()]
LESSONS = {p.relative_to(NBS).as_posix() for p in lessons()}
every_page = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def book():
    return Book(ROOT)


@pytest.fixture(scope="module")
def pages(book):
    """Every notebook as Quarto gets it."""
    found = {p.name: processed(book, p)["cells"] for p in book.pages}
    for cells in found.values():
        for cell in cells:
            assert isinstance(cell["source"], list), "Quarto reads a source line by line"
            cell["text"] = "".join(cell["source"])
    return found


def prose(cells) -> str:
    return "\n\n".join(c["text"] for c in cells if c["cell_type"] == "markdown")


def code(cells, key: str) -> Counter:
    """The lines of code without directives and empty lines."""
    lines = [x for c in cells if c["cell_type"] == "code" for x in "".join(c[key]).splitlines()]
    return Counter(x for x in lines if x.strip() and not re.match(r"#\|", x))


# Every page has its place and its number


def test_the_sidebar_has_every_notebook_once(book):
    config = configuration(book, [*NAMES, "listen.qmd", "teach/plan.qmd", "404.qmd"])
    found = []

    def walk(contents):
        for entry in contents:
            found.append(entry if isinstance(entry, str) else entry.get("href"))
            walk([] if isinstance(entry, str) else entry.get("contents", []))

    walk(config["website"]["sidebar"]["contents"])
    assert Counter(x for x in found if x) == Counter([*NAMES, "listen.qmd", "teach/plan.qmd"])
    sections = [
        x["section"] for x in config["website"]["sidebar"]["contents"] if isinstance(x, dict)
    ]
    assert [s.split()[0] for s in sections[:8]] == list("ABCDEFGH")
    assert config["website"]["sidebar"]["collapse-level"] == 1  # solutions are folded


def test_chapters_are_in_order(book):
    numbers = [int(p.number) for p in book.pages if p.folder < "7" and p.number]
    assert numbers == sorted(numbers) and len(numbers) >= 23
    rooms = [p.number for p in book.pages if p.folder == "7_engine"]
    assert rooms.index("90") < rooms.index("901") < rooms.index("91")


@every_page
def test_title_has_the_number(name, book, pages):
    page = book.by_name[name]
    front = yaml.safe_load(pages[name][0]["text"].strip("-\n"))
    assert page.plain_title.removeprefix("Solutions: ") in front["title"]
    if page.number:
        assert re.search(rf"\b{page.number}\b", front["title"])


@every_page
def test_what_stands_below_the_title(name, book, pages):
    """Level, time, cost and needs; download, Colab, source; chapter and solutions."""
    if name == "index.ipynb":
        return
    box, page = pages[name][1]["text"], book.by_name[name]
    for key, value in page.front.items():
        plain = re.sub(r"[^\w]+", "", re.sub(r"\]\([^)]*\)", "", value))
        assert plain in re.sub(r"[^\w]+", "", re.sub(r"\]\([^)]*\)", "", box)), key
    assert f"notebooks/{name}" in box and f"/blob/main/nbs/{name}" in box and "colab" in box
    twin = book.solutions(page)
    assert (twin is None) or twin.path.name in box
    assert twin or name not in LESSONS


# Nothing is lost


@every_page
def test_no_line_of_code_is_lost(name, book, pages):
    assert code(pages[name], "text") == code(book.by_name[name].cells, "source")


@every_page
def test_no_output_is_lost(name, book, pages):
    asks = lambda out: (
        ASKS in json.dumps(out)
        and any(
            re.search(line, "".join(c["source"]), re.M)
            for line, _ in SMALL.get(book.by_name[name].number, [])
            for c in book.by_name[name].cells
        )
    )  # where a small version of a widget stands, nobody is sent to JupyterLab
    shown = lambda cell: [o for o in cell.get("outputs", []) if not asks(o)]
    count = lambda cells: sum(len(shown(c)) for c in cells)
    empty = [
        c
        for c in book.by_name[name].cells
        if c["cell_type"] == "code" and not re.sub(r"^#\|.*$", "", c["source"], flags=re.M).strip()
    ]
    assert count(pages[name]) == count(book.by_name[name].cells) - count(empty)
    assert not count(empty)


def plain(text: str) -> str:
    """The words of a text: links, anchors and equation marks taken away."""
    text = re.sub(r"<!-- :+.* -->|^:{3,}.*$", " ", text, flags=re.M)  # boxes, for the site alone
    text = re.sub(r"\n*::: \{\.equation #[\w-]+\}\n*|\n*:::\n*", " ", text)
    text = re.sub(r"\[\(\d+\)\]\(#equation-\d+\)\{[^}]*\}|\\tag\{\d+\}", " ", text)
    text = re.sub(r"\[the exercise\]\([^)]*\)\{\.back\}", " ", text)
    text = re.sub(r" \[[^\]\n]*\]\([^)]*\)\{\.cite\}", " ", text)
    text = re.sub(r" \{#exercise-[\d-]+\}|\]\([^)\n]*\)|[\[\]]", "", text)
    return re.sub(r"\s+", "", text)


@every_page
def test_no_word_is_lost(name, book, pages):
    whole = plain(prose(pages[name]))
    for cell in book.by_name[name].cells[1:]:
        if cell["cell_type"] == "markdown":
            assert plain(cell["source"]) in whole, cell["source"][:80]


def test_every_public_definition_has_a_table(book, pages):
    """Functions, classes and methods, each with all of its parameters."""
    seen = 0
    for source in book.sources.values():
        text = prose(pages[book.modules[source.module].name])
        for top in source.definitions.values():
            for d in (top, *top.methods):
                part = text.split(f'id="{d.anchor}"')
                assert len(part) == 2, d.anchor
                for p in d.parameters:
                    assert f'<th scope="row"><code>{p.name}</code></th>' in part[1], p.name
                assert f"/{source.module.replace('.', '/')}.py#L{d.line}" in part[1]
                seen += 1
    assert seen > 1100


def test_source_links_point_to_the_right_line(book):
    for source in book.sources.values():
        lines = (ROOT / (source.module.replace(".", "/") + ".py")).read_text().splitlines()
        for d in source.definitions.values():
            assert re.match(rf"(?:def|class) {d.name}\b", lines[d.line - 1])


def test_comments_become_descriptions(book):
    stft = book.sources["sepbook.stft"].definitions["stft"]
    found = {p.name: p for p in stft.parameters}
    assert found["n_fft"].kind == "int" and found["n_fft"].default == "2048"
    assert found["n_fft"].about == "samples in a frame"
    assert stft.returns.about == "(..., n_fft // 2 + 1, frame), complex"
    fit = book.find("Learner.fit", book.by_name["3_masking/20_learner.ipynb"])
    assert fit.parameters[0].name == "minutes"


def test_long_definitions_are_folded(pages):
    cells = pages["4_waveform/43_conv_tasnet.ipynb"]
    folded = [c["text"] for c in cells if "code-fold: true" in c["text"]]
    imports = [t for t in folded if 'code-summary: "imports' in t]
    assert len(folded) > len(imports) > 0
    assert all(len(t.splitlines()) > 30 for t in folded if t not in imports)
    assert all(re.search(r"^(from|import) ", t, re.M) and "def " not in t for t in imports)
    assert any("class ConvTasNet" in t for t in folded)


# Links


def anchors(cells) -> Counter:
    text = prose(cells)
    return Counter(re.findall(r'\{(?:[^}\n]*\s)?#([\w-]+)[^}\n]*\}|\bid="([\w.-]+)"', text))


@every_page
def test_links_lead_somewhere(name, book, pages):
    here = (NBS / name).parent
    for target in re.findall(r"\]\(([^)\s]+)", prose(pages[name])):
        path, _, anchor = target.partition("#")
        if re.match(r"https?:|mailto:", target) or "notebooks/" in path:
            continue
        file = (here / path).resolve() if path else NBS / name
        assert file.exists(), target
        if re.match(r"equation-|exercise-|figure-|sepbook\.", anchor):
            there = prose(pages[file.relative_to(NBS).as_posix()])
            assert re.search(rf'#{re.escape(anchor)}[\s}}]|id="{re.escape(anchor)}"', there), target


@every_page
def test_anchors_are_unique(name, pages):
    assert not [a for a, n in anchors(pages[name]).items() if n > 1]


@every_page
def test_equations_have_their_numbers(name, book, pages):
    """Pandoc's MathML forgets \\tag: each number stands beside its formula, as a link."""
    text = prose(pages[name])
    assert "\\tag{" not in text
    tagged = EQUATION.findall(book.by_name[name].text)
    assert len(re.findall(r"\{\.equation #equation-\d+\}", text)) == len(tagged)
    for _, number, _ in tagged:
        assert f"[({number})](#equation-{number})" in text


@every_page
def test_what_is_named_is_linked(name, book, pages):
    """Chapters, exercises and equations; a book's chapters in the reading list are not ours."""
    reading = False
    for cell in pages[name]:
        if cell["cell_type"] != "markdown":
            continue
        for piece, free, at in pieces(cell["text"]):
            if piece.startswith("## "):
                reading = "further reading" in piece.lower()
            if not free or reading:
                continue
            near = cell["text"][max(0, at - 40) :][:120]
            assert not EXERCISES.search(piece), near
            assert not EQUATIONS.search(piece), near
            found = [
                m.group()
                for m in CHAPTER.finditer(piece)
                if re.findall(r"\d+", m.group(3))[0].lstrip("0") in book.chapters
                and not elsewhere(cell["text"], at + m.start())
            ]
            assert not found, near


WHERE = [
    ("1_foundations/02_stft.ipynb", "overlap_add", "sepbook.engine.spectra.overlap_add"),
    ("4_waveform/42_tasnet.ipynb", "overlap_add", "sepbook.models.tasnet.overlap_add"),
    ("7_engine/91_files.ipynb", "load", "sepbook.engine.files.load"),
    ("7_engine/95_weights.ipynb", "load", "sepbook.engine.weights.load"),
    ("4_waveform/43_conv_tasnet.ipynb", "Block", "sepbook.models.conv_tasnet.Block"),
    ("4_waveform/45_sepformer.ipynb", "Block", "sepbook.models.sepformer.Block"),
    ("4_waveform/46_demucs.ipynb", "positions", "sepbook.models.demucs.positions"),
    ("1_foundations/02_stft.ipynb", "sepbook.separate", "sepbook.engine.face.separate"),
    ("1_foundations/02_stft.ipynb", "Learner.fit", "sepbook.learner.Learner.fit"),
    ("1_foundations/02_stft.ipynb", "load", None),  # not imported there, and two have the name
    ("1_foundations/02_stft.ipynb", "torch.stft", None),
    ("1_foundations/02_stft.ipynb", "Learner.nothing", None),
]


@pytest.mark.parametrize("page, name, anchor", WHERE)
def test_names_lead_to_the_right_module(page, name, anchor, book):
    found = book.find(name, book.by_name[page])
    assert (found.anchor if found else None) == anchor


def test_solutions_are_linked_both_ways(pages):
    chapter = prose(pages["1_foundations/02_stft.ipynb"])
    solved = prose(pages["solutions/02_stft.ipynb"])
    for k in range(1, 8):
        assert f"](../solutions/02_stft.ipynb#exercise-2-{k})" in chapter
        assert f"](../1_foundations/02_stft.ipynb#exercise-2-{k}){{.back}}" in solved


def test_prose_on_small_examples(book):
    say = Prose(book, book.by_name["2_classical/13_nmf.ipynb"])
    assert say("as chapters 2 and 20 do") == (
        "as chapters [2](../1_foundations/02_stft.ipynb) and [20](../3_masking/20_learner.ipynb) do"
    )
    assert say("`chapter 2`, $x$ and [chapter 2](x)") == "`chapter 2`, $x$ and [chapter 2](x)"
    assert say("### A chapter 2") == "### A chapter 2"
    assert say("Wiley, 2018. Chapter 1 has it") == "Wiley, 2018. Chapter 1 has it"
    assert say("equation (8) of chapter 2").startswith(
        "[equation (8)](../1_foundations/02_stft.ipynb#equation-8) of [chapter 2]"
    )
    assert say("$$a = b \\tag{3}$$") == (
        "::: {.equation #equation-3}\n\n$$a = b$$\n\n"
        '[(3)](#equation-3){.equation-number aria-label="Equation 3"}\n\n:::'
    )


# Figures, downloads, what the finishing touches do


@every_page
def test_figures_are_numbered_in_order(name, book, pages):
    found = re.findall(r'fig-cap: "Figure ([\d.]+)"', "\n".join(c["text"] for c in pages[name]))
    number = book.by_name[name].number
    assert found == [f"{number}.{i + 1}" if number else str(i + 1) for i in range(len(found))]


def test_downloads_are_light(book):
    for page in book.pages:
        nb = bare(page)
        assert not any(c.get("outputs") for c in nb["cells"])
        assert len(json.dumps(nb)) < 200_000


def test_a_bar_over_a_formula_is_as_long():
    hat = '<mover><mi>s</mi><mo accent="true">̂</mo></mover>'
    bar = '<mo accent="true">¯</mo></mover>'
    short = f"<mover><mi>x</mi>{bar}"
    assert with_bars(f"<p>{short}{hat}</p>") == f"<p>{short}{hat}</p>"
    long = with_bars(f"{short}<mover><mrow>{hat}<mo>-</mo><mi>s</mi></mrow>{bar}<mi>y</mi>{short}")
    assert long.startswith(f'{short}<mrow style="border-top')
    assert long.endswith(f"<mrow>{hat}<mo>-</mo><mi>s</mi></mrow></mrow><mi>y</mi>{short}")
    assert long.count("<mover>") == long.count("</mover>") == 3


def test_the_search_has_a_formula_once(book):
    tex = r"\hat s_{j} &lt; 1"
    page = (
        "<math><semantics><mover><mi>ŝ</mi></mover><mo>&lt;</mo><mn>1</mn>"
        f'<annotation encoding="application/x-tex">{tex}</annotation></semantics></math>'
    )
    section = {"objectID": "a", "href": "a.html#b", "text": r"so ŝ<1\hat s_{j} < 1 holds"}
    assert index(book, [section], {"a.html": page})[-1]["text"] == "so ŝ<1 holds"


def test_nothing_comes_from_another_host():
    page = (
        '<script src="https://cdn.example/require.min.js" integrity="x"></script>'
        '<script src="../site_libs/quarto.js"></script>'
        "<script type=\"application/javascript\">define('jquery', [],function() {})</script>"
        '<link href="https://fonts.example/x" rel="stylesheet"><a href="https://doi.org/1">x</a>'
    )
    kept = '<script src="../site_libs/quarto.js"></script>'
    assert without_outside(page).startswith(kept)
    assert "example" not in without_outside(page) and "doi.org" in without_outside(page)
    for path in NBS.rglob("*.scss"):
        assert "http" not in path.read_text()
    for name in NAMES:
        for cell in json.loads((NBS / name).read_text())["cells"]:
            for out in cell.get("outputs", []):
                html = "".join(out.get("data", {}).get("text/html", ""))
                assert 'src="http' not in html, name


def test_tables_are_numbered_and_have_no_empty_header():
    table = "<table><thead><tr><th></th><th>a</th></tr></thead></table>"
    page = f"<nav>{table}</nav><main>{table}{table}</main>"
    done = with_tables(page, "13")
    assert done.startswith(f"<nav>{table}</nav>")
    assert re.findall(r"Table ([\d.]+)", done) == ["13.1", "13.2"]
    assert "<th></th>" not in done.split("<main>")[1]
    assert "caption" not in with_tables(page, None)
    assert 'aria-label="Course"' in labelled('<nav id="quarto-sidebar">')


def test_search_knows_every_definition(book):
    found = definitions(book)
    names = {e["title"] for e in found}
    assert {"stft", "overlap_add", "Learner.fit", "ConvTasNet"} <= names
    assert len({e["objectID"] for e in found}) == len(found) > 1000
    where = next(e for e in found if e["title"] == "stft")
    assert where["href"] == "1_foundations/stft.html#sepbook.stft.stft"


def test_the_reference_names_everything(book, pages):
    text = api(book)
    links = dict(re.findall(r"\[`([\w.]+)`\]\(\.\./([^)]+)\)", text))
    wanted = {d["title"] for d in definitions(book)}
    assert wanted == set(links)
    for target in links.values():
        path, anchor = target.split("#")
        assert f'id="{anchor}"' in prose(pages[path])


def test_the_configuration_is_whole(book):
    config = configuration(book, NAMES)
    assert config["execute"]["enabled"] is False and "commonmark" not in config["format"]
    html = config["format"]["html"]
    assert html["html-math-method"] == "mathml" and set(html["theme"]) == {"light", "dark"}
    assert "$web-font-path: false;" in (NBS / "sepbook.scss").read_text()
    assert config["website"]["repo-subdir"] == "nbs"
    for theme in html["theme"].values():
        assert all((NBS / t).exists() for t in theme if t.endswith(".scss"))
    for file in ("site.js", "site.css", "icon.svg", "card.png", "LICENCE-font.txt"):
        assert (NBS / "assets/site" / file).exists()
    assert (NBS / "assets/site/latinmodern-math.woff2").stat().st_size < 300_000
    assert "nbs/nbdev.yml" in (ROOT / ".gitignore").read_text().splitlines()


def png(text: str, size: tuple[int, int] = (400, 300)) -> bytes:
    """A picture with lines and letters."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text((10, 10), text * 20, fill="black")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_sounds_and_pictures_become_files_once(tmp_path):
    """The same clip on two pages and in slides is one file, whose length the page knows."""
    sound = io.BytesIO()
    sf.write(sound, np.random.default_rng(0).normal(size=12000) / 9, 8000, format="MP3")
    data = base64.b64encode(sound.getvalue()).decode()
    source = f'src="data:audio/mpeg;base64,{data}"'
    clip = f'<figure><audio controls="" preload="metadata" {source}></audio></figure>'
    media, site = Media(tmp_path), "https://example.org/sepbook"
    pages = [tmp_path / "a.html", tmp_path / "teach/slides/b.html"]
    figure = tmp_path / "2_nmf_files/figure-html/cell-1-output-1.png"
    figure.parent.mkdir(parents=True)
    figure.write_bytes(png("figure"))
    shown = (
        f'<meta property="og:image" content="{site}/2_nmf_files/figure-html/cell-1-output-1.png">'
        '<img src="2_nmf_files/figure-html/cell-1-output-1.png" alt="A figure">'
    )
    first = media.page(shown + clip + clip, pages[0], site)
    second = media.page(clip, pages[1], site)
    media.tidy()
    stored = {p.suffix: p for p in (tmp_path / "media").iterdir()}
    assert set(stored) == {".mp3", ".webp"} and not (tmp_path / "2_nmf_files").exists()
    assert "data:" not in first + second
    assert first.count(f'src="media/{stored[".mp3"].name}" data-seconds="1.5') == 2
    assert f'src="../../media/{stored[".mp3"].name}"' in second and 'preload="none"' in second
    assert f'content="{site}/media/{stored[".webp"].name}"' in first
    assert f'src="media/{stored[".webp"].name}" alt="A figure" width="400" height="300"' in first
    assert stored[".mp3"].read_bytes() == sound.getvalue()
    exact = Image.open(stored[".webp"]).convert("RGB")  # lines and letters are kept as they are
    assert exact.tobytes() == Image.open(io.BytesIO(png("figure"))).tobytes()


def test_what_a_page_holds_twice_it_holds_once(tmp_path):
    """Styles and scripts that every output brings; the player's come from a file."""
    own = "<script>window.own = 1;</script>"
    html = f"<head></head><body>{player_assets()}<audio></audio>{own}{player_assets()}{own}</body>"
    page = Media(tmp_path).page(with_ours(html, "../"), tmp_path / "a/b.html", "")
    assert page.count(own) == 1 and "window.sepbookPlayer" not in page
    assert page.index("assets/site/player.js") < page.index("assets/site/site.js")
    card = '<meta property="og:image" content="https://x.org/s/1_a/data:image/webp;base64,AAAA">'
    assert "https://x.org/s/assets/site/card.png" in Media(tmp_path).page(
        card, tmp_path / "b.html", "https://x.org/s"
    )


def test_drawn_links_are_left_alone():
    """What stands in Quarto's script; if that changes, the browser test of the home page fails."""
    script = "if (links[i].href) { links[i].href = links[i].href.replace(/x/, ''); }"
    assert with_drawn_links(script).startswith('if (typeof links[i].href === "string") {')


def test_search_index_is_short(book):
    """Definitions first; a section is found by its beginning."""
    entries = index(book, [{"objectID": "a", "href": "a.html", "text": "x" * 10_000}], {})
    assert len(entries[-1]["text"]) == 3000 and entries[0]["section"]


def test_widgets_have_small_versions(book, pages):
    """Each stands once on its page, asks for clips that are there, and nothing asks for Python."""
    for number, lines in SMALL.items():
        page = book.chapters[number]
        html = "".join(text for text in (outputs(page, "text/html")))
        cells = pages[page.name]
        for _, box in lines:
            assert sum(box in c["text"] for c in cells) == 1, box
            clips = re.search(r'data-clips?="([^"]+)"', box)[1].split("|")
            for name in [*clips, *re.findall(r'data-mix="([^"]+)"', box)]:
                assert f"<figcaption>{name}</figcaption><audio" in html, name
            if mix := re.search(r'data-mix="([^"]+)"', box):  # fitted sample by sample: one excerpt
                player = next(
                    t for t in outputs(page, "text/html") if f">{mix[1]}</fig" in "".join(t)
                )
                assert all(f"<figcaption>{name}</figcaption>" in "".join(player) for name in clips)
        if number in ("1", "2"):
            assert ASKS not in json.dumps([c.get("outputs", []) for c in cells])


def test_home_has_columns_pictures_and_sounds(book, pages):
    cells = pages["index.ipynb"]
    text = prose(cells)
    assert text.count("::::: {.hero}") == 1 and "<!-- :" not in text
    html = "".join(
        "".join(o.get("data", {}).get("text/html", "")) for c in cells for o in c.get("outputs", [])
    )
    cards = html.count('class="card-chapter"')
    leads = set(re.findall(r'href="([\w/]+\.\w+)"', html))
    assert leads == {p.url for p in book.chapters.values() if p.folder != "7_engine"}
    assert cards > 33 and html.count('<img alt=""') == html.count('class="stamp hear"') == cards
