"""What the repository promises: figures with their origin, a README in step, one plain lock."""

import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from course import ROOT, lessons

results = sorted((ROOT / "results").glob("*.json"))


def tracked() -> list[str]:
    return subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")


@pytest.mark.parametrize("path", results, ids=lambda p: p.stem)
def test_every_result_says_how_to_repeat_it(path):
    result = json.loads(path.read_text())
    for key in ("title", "command", "date", "device", "headline"):
        assert result.get(key), key
    for row in result["headline"]:
        assert {"what", "value", "unit"} <= set(row)
    words = result["command"].split()
    assert words[0] in ("make", "sepbook") or (ROOT / words[1]).exists()


def test_readme_is_in_step():
    done = subprocess.run(
        [sys.executable, "tools/readme.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_of_one_machine():
    pattern = re.compile(r"/work/|/root/|/home/\w|/Users/\w|\.internal\b")
    for name in tracked():
        if (
            name.endswith((".py", ".md", ".yml", ".sh", ".ini", ".lock", ".json", ".toml", ".csv"))
            and "tests/" not in name
        ):
            text = (ROOT / name).read_text(encoding="utf-8")
            assert not pattern.search(text), f"{name}: {pattern.search(text)}"


def test_lock_has_every_requirement():
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    locked = {
        re.split(r"[=<>;\s\[]", line)[0].lower().replace("_", "-")
        for line in (ROOT / "requirements.lock").read_text().splitlines()
    }
    for key in [k for k in config["DEFAULT"] if k.endswith("requirements")]:
        for requirement in config["DEFAULT"][key].split():
            name = re.split(r"[=<>\[]", requirement)[0].lower().replace("_", "-")
            assert name in locked, name


def test_lock_is_plain():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "-e " not in text


def test_only_parity_tests_import_peers():
    """`make test` runs without them, but where they lie in .peers, any test could lean on them."""
    lock = (ROOT / "requirements-peers.lock").read_text().splitlines()
    peers = {re.split("==", x)[0].lower().replace("-", "_") for x in lock if "==" in x}
    peers |= {"espnet2", "ruamel"}
    for name in tracked():
        if name.endswith(".py") and not name.startswith(("tests/parity/", "benchmarks/")):
            code = (ROOT / name).read_text(encoding="utf-8")
            found = set(re.findall(r"^\s*(?:from|import) (\w+)", code, re.M)) & peers
            assert not found, f"{name} imports {found}"


def test_no_large_files():
    """A megabyte at most; a notebook with its pictures and sounds 2.5, weights that ship 8."""
    for name in filter(None, tracked()):
        if (ROOT / name).exists():
            limit = 2_500_000 if name.endswith(".ipynb") else 1_000_000
            limit = 8_000_000 if name.startswith("sepbook/weights/") else limit
            assert (ROOT / name).stat().st_size <= limit, name


def test_the_map_is_true():
    """README.md, made from the home page, has a row for every chapter, with its link."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|[^|]*\| \[(\d\d) [^\]]+\]\((nbs/[^)]+)\)", text, re.M)
    assert {path for _, path in rows} == {path.relative_to(ROOT).as_posix() for path in lessons()}
    assert all(Path(path).name.startswith(number) for number, path in rows)


def test_the_plan_has_read_what_it_needs():
    """Each week of the plan for teachers, and the chapters that those of the week build on."""
    plan = (ROOT / "nbs" / "teach" / "plan.qmd").read_text(encoding="utf-8")
    needs = {}
    for path in lessons():
        cell = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        line = re.search(r"^- needs: (.*)$", cell, re.M)[1]
        needs[int(path.name[:2])] = set(map(int, re.findall(r"(\d\d)_\w+\.ipynb", line)))
    read = set()
    for week in plan.split("\n## Week ")[1:]:
        told = re.search(r"^- \*\*Read\*\*: (.*)$", week, re.M)[1]
        named = set(map(int, re.findall(r"(?:chapters?|and) (\d+)", told)))
        todays = set(map(int, re.search(r"\{minutes ([\d ]+)\}", told)[1].split()))
        missing = set().union(*(needs[n] for n in todays)) - read - named
        assert not missing, f"week {week.split(':')[0]} needs chapters {sorted(missing)}"
        read |= todays
