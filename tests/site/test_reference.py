"""Bibliography, glossary, notation, systems, and the pages for teachers."""

import re
import sys

import pytest
import yaml
from course import NBS, ROOT

sys.path.insert(0, str(ROOT / "tools"))
from sitemaker import slides
from sitemaker.bibliography import Bibliography, cited, identifier, listing, reading
from sitemaker.book import PARTS, Book
from sitemaker.build import written
from sitemaker.systems import GROUPS, index, rows
from sitemaker.text import CHAPTER, Prose, pieces


@pytest.fixture(scope="module")
def book():
    return Book(ROOT)


@pytest.fixture(scope="module")
def bib(book):
    return book.bibliography


# The bibliography


def test_every_entry_of_every_reading_list_is_in_the_bibliography(book, bib):
    seen = 0
    for page in book.pages:
        for entry in reading(page.text):
            seen += 1
            assert bib.named(entry), f"{page.name}: add to nbs/reference/references.bib: {entry}"
            # no address of a work is left out, but for its code
            for address in re.findall(r"\]\((https?://(?:doi|arxiv)\.org/[^\s]+?)\)(?!\w)", entry):
                assert identifier(address) in bib.by_identifier, (page.name, address)
    assert seen > 180


def test_works_are_whole(bib):
    keys = [w.key for w in bib.works]
    assert len(set(keys)) == len(keys) > 150 and keys == sorted(keys)
    count = (NBS / "reference/references.bib").read_text().count("\n@")
    assert count == len(keys)
    for work in bib.works:
        assert work.links and {"author", "title", "year"} <= set(work.fields), work.key
        assert re.fullmatch(r"\d{4}|undated", work.fields["year"]), work.key
        for address in work.links.values():
            assert re.fullmatch(r"https?://\S+", address)
        if work.kind != "misc":
            assert set(work.fields) & {"journal", "booktitle", "publisher"}, work.key
        assert re.match(r"[a-z]+(\d{4}|undated|[a-z])", work.key)
    ids = [i for w in bib.works for i in w.identifiers]
    assert len(set(ids)) == len(ids), "a work is typed twice"


SAME = "Y. Luo, [Conv-TasNet](https://doi.org/10.1109/TASLP.2019.2915167), 2019"


def test_which_work_is_meant(bib):
    keys = lambda entry: [w.key for w in bib.named(entry)]
    assert keys(SAME) == ["luo2019convtasnet"]
    assert keys("[x](https://arxiv.org/abs/1809.07454v2)") == ["luo2019convtasnet"]
    assert keys('C. Subakan, "Attention is all you need in speech separation"') == [
        "subakan2021attention"
    ]
    assert keys("ITU-T Recommendation P.56, 2011. ITU-R BS.1770-4, 2015.") == [
        "itur2015recommendation",
        "itut2011recommendation",
    ]
    assert keys("Nobody, *Nothing at all that anybody wrote*, 2020") == []


def test_entries_link_to_the_bibliography(book, bib):
    here = "../reference/bibliography.qmd#luo2019convtasnet"
    assert cited(bib, f"- {SAME}", "2_classical").endswith(
        f" [Luo and Mesgarani 2019]({here}){{.cite}}"
    )
    say = Prose(book, book.by_name["4_waveform/43_conv_tasnet.ipynb"])
    assert here not in say(f"## Summary\n\n- {SAME}")
    assert here in say(f"## Further reading\n\n- {SAME}")


def test_the_page_lists_every_work_with_its_chapters(book, bib):
    text = listing(book)
    anchors = re.findall(r"\{\.work #([\w-]+)\}", text)
    assert sorted(anchors) == sorted(w.key for w in bib.works)
    entry = text.split("#luo2019convtasnet}")[1].split("\n:::")[0]
    assert "Y. Luo, N. Mesgarani. **Conv-TasNet: surpassing" in entry
    assert "https://arxiv.org/abs/1809.07454" in entry and "TASLP.2019.2915167" in entry
    assert "[43](../4_waveform/43_conv_tasnet.ipynb)" in entry and "@article{luo2019" in entry
    assert isinstance(Bibliography(NBS / "nothing.bib").works, list)


# Glossary and notation


def written_page(book, name):
    return written(book, NBS / "reference" / f"{name}.qmd")


def test_glossary_is_sorted_and_each_term_is_in_its_chapter(book):
    source = (NBS / "reference/glossary.qmd").read_text()
    terms = re.findall(r"^\[(.+?)\]\{#([\w-]+)\}\n:   (.+) Chapter (\d+)\.$", source, re.M)
    assert len(terms) == source.count("\n:   ") >= 60
    letters = [re.sub(r"[^a-z0-9]", "", t[0].lower()) for t in terms]
    assert letters == sorted(set(letters))
    flat = lambda text: re.sub(r"\s+", " ", text).lower().replace("-", " ")
    for term, anchor, about, number in terms:
        page = book.chapters[number]
        assert flat(term) in flat(page.text + page.code), f"chapter {number} has no {term!r}"
        assert anchor == re.sub(r"[^a-z0-9]+", "-", term.lower()).strip("-")
        assert 1 <= len(re.findall(r"[.;](?=\s|$)", about)) <= 3 and len(about) < 200, term


@pytest.mark.parametrize(
    "path", sorted(NBS.glob("reference/*.qmd")) + sorted(NBS.glob("teach/*.qmd"))
)
def test_written_pages_are_linked(book, path):
    text = written(book, path)
    front = re.match(r"---\n(.*?)\n---\n", text, re.S).group(1)
    assert "title:" in front and "description:" in front and "](" not in front
    rest = text[len(front) :]
    for piece, free, _ in pieces(rest):
        if free:
            named = [n for m in CHAPTER.finditer(piece) for n in re.findall(r"\d+", m.group(3))]
            assert not named or path.stem == "bibliography", f"no chapter {named}"
    for target in re.findall(r"\]\(([^)\s]+)", rest):
        file, _, anchor = target.partition("#")
        made = file == "api.qmd" or file.startswith("slides/")  # at the build
        if not re.match(r"https?:|mailto:", target) and file and not made:
            there = (path.parent / file).resolve()
            assert there.exists(), target
            if anchor.startswith("exercise-"):
                home = book.by_name[there.relative_to(NBS).as_posix()]
                assert anchor.removeprefix("exercise-").replace("-", ".") in home.exercises
    assert "{bibliography}" not in text and "{systems" not in text


def test_notation_has_every_name_of_the_one_interface(book):
    text = written_page(book, "notation")
    for name in "mix src est mask n_fft hop window sample_rate n_src".split():
        assert f"`{name}`" in text
    assert "`(batch, source, channel, time)`" in text and "`(..., frequency, frame)`" in text
    assert "[chapter 13](../2_classical/13_nmf.ipynb)" in text


# Systems


def test_systems_are_whole(book, bib):
    found = rows(book)
    keys, names = {w.key for w in bib.works}, [r["name"] for r in found]
    assert len(set(names)) == len(names) > 75
    for row in found:
        assert row["group"] in GROUPS and re.fullmatch(r"(?:19|20)\d\d", row["year"]), row["name"]
        assert row["for"] and row["works on"], row["name"]
        known = row["paper"] in keys or re.fullmatch(r"(?:arXiv:\d{4}\.\d{5})?", row["paper"])
        assert known, row["paper"]
        assert bool(row["published"]) == bool(row["measure"]) == bool(row["source"]), row["name"]
        if row["group"] == "card":
            assert row["chapter"] in book.chapters, row["name"]


def test_published_figures_are_those_of_the_chapters(book):
    """A figure taken from a chapter's table stands there."""
    seen = 0
    for row in rows(book):
        if row["source"].startswith("chapter "):
            page, seen = book.chapters[row["source"].split()[1]], seen + 1
            numbers = re.findall(r"(?<![\d.])\d+\.\d+", page.text + page.code)
            places = len(row["published"].split(".")[1])
            assert any(round(float(n), places) == float(row["published"]) for n in numbers), row[
                "name"
            ]
    assert seen > 35


def test_the_index_of_systems(book):
    text = index(book)
    lines = [x for x in text.splitlines() if x.startswith("| ") and "| System |" not in x]
    assert len(lines) == len(rows(book)) and all(x.count(" | ") == 6 for x in lines)
    conv = next(x for x in lines if x.startswith("| Conv-TasNet "))
    assert "[43](../4_waveform/43_conv_tasnet.ipynb)" in conv and "**15.3**" in conv
    assert "bibliography.qmd#luo2019convtasnet" in conv
    assert "published" in (NBS / "reference/systems.qmd").read_text()


# For teachers


def test_the_plan_has_twelve_weeks_with_all_that_a_week_needs(book):
    source = (NBS / "teach/plan.qmd").read_text()
    weeks = re.split(r"^## Week (\d+): .+$", source.split("## If there is")[0], flags=re.M)[1:]
    assert weeks[::2] == [str(n) for n in range(1, 13)]
    for text in weeks[1::2]:
        kinds = re.findall(r"^- \*\*(.+?)\*\*: ", text, re.M)
        assert kinds == ["Read", "Exercises", "Demonstration", "Timing", "Misunderstandings"]
        assert "{minutes" in text
        chapters = set(re.search(r"\{minutes ([\d ]+)\}", text)[1].split())
        assert chapters == set(re.findall(r"\b\d+\b", re.search(r"chapters? (.+?) \(", text)[1]))
        for number in re.findall(r"\b(\d+\.\d)\b", text):
            assert number in book.exercise_pages and number.split(".")[0] in chapters, number
    shown = written(book, NBS / "teach/plan.qmd")
    assert "{minutes" not in shown and "reading 50 min" in shown


def test_an_assignment_for_each_part(book):
    source = (NBS / "teach/assignments.qmd").read_text()
    parts = re.split(r"^## ([A-F]) (.+)$", source, flags=re.M)[1:]
    wanted = [v for k, v in PARTS.items() if k < "7"]
    assert list(zip(parts[::3], parts[1::3])) == wanted
    for text in parts[2::3]:
        assert "**Hand in**" in text and "**The page**" in text and "**Look for**" in text
    assert "tools/mark.py" in source and (ROOT / "tools/mark.py").exists()


def test_slides_of_a_chapter(book, tmp_path):
    page = book.chapters["43"]
    text = slides.deck(book, page, tmp_path)
    front = yaml.safe_load(text.split("---\n")[1])
    look = front["format"]["revealjs"]  # the other themes and ways of maths ask other hosts
    assert look["html-math-method"] == "mathml" and look["theme"] == "default"
    assert "https://" not in text.replace("https://doi", "")
    heads = re.findall(r"^## (.+)$", text, re.M)
    assert heads[0] == "You will be able to" and "Summary" in heads and "Listen first" in heads
    assert "Further reading" not in heads
    for objective in slides.bullets(page, "you will be able"):
        assert f"- {objective}" in text
    pictures = re.findall(r"!\[\]\((.+?\.png)\)\{fig-alt=\"(.+?)\"\}", text)
    assert len(pictures) >= 4 and all((tmp_path / p).stat().st_size > 1000 for p, _ in pictures)
    assert text.count("<audio") >= 3 and 'aria-label="mixture"' in text
    assert "$$" in text and "\\tag" not in text and text.count("::: {.notes}") >= 6
    assert "](../" not in text


def test_slides_are_there_for_what_the_plan_reads(book):
    numbers = [p.number for p in slides.shown(book)]
    assert numbers[:3] == ["1", "2", "3"] and numbers[-len(slides.READ) :] == slides.READ
    weeks = re.findall(r"\{minutes ([\d ]+)\}", (NBS / "teach/plan.qmd").read_text())
    assert {n for week in weeks for n in week.split()} <= set(numbers)
    listed = written(book, NBS / "teach/slides.qmd")
    assert listed.count("](slides/") == len(numbers)
