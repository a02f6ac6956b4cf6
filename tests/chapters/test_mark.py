"""The marking checker: what is to do, what is solved, what runs too long."""

import json
import subprocess
import sys

import pytest
from course import NBS, ROOT

sys.path.insert(0, str(ROOT / "tools"))
from mark import cells, mark, modules, points, table

IMPORTS = """import time
from sepbook.exercises.sound import check_alias
from sepbook.exercises.sound import check_mix_at_snr"""
STUBS = """def alias(hz, sample_rate):
    ...

check_alias(alias)"""
SOLVED = """def alias(hz, sample_rate):
    return abs(hz - sample_rate * round(hz / sample_rate))

check_alias(alias)"""
WRONG = "check_mix_at_snr(lambda speech, noise, snr: speech)"


def notebook(folder, *code, name="student.ipynb"):
    made = [{"cell_type": "code", "metadata": {}, "source": text} for text in code]
    path = folder / name
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def status(result):
    return {e["number"]: e["status"] for e in result["exercises"]}


def test_untouched_is_all_to_do(tmp_path):
    """A whole chapter as it is handed out."""
    result = mark(NBS / "1_foundations/01_sound.ipynb", 240)
    assert result["done"] and not result["errors"]
    assert set(status(result)) == {"1.1", "1.3", "1.4", "1.5"}
    assert set(status(result).values()) == {"to do"}
    assert points(result) == (0, 1 + 2 + 4 + 3)


def test_solved_counts_and_wrong_does_not(tmp_path):
    path = notebook(tmp_path, IMPORTS, SOLVED, WRONG, "%matplotlib inline\n1 / 0", STUBS)
    result = mark(path, 120)
    found = status(result)
    assert (found["1.1"], found["1.3"], found["1.4"]) == ("solved", "not yet", "to do")
    assert points(result) == (1, 10)
    assert result["errors"] == ["code cell 4: ZeroDivisionError: division by zero"]
    text = table(result)
    assert "in all" in text and "1 of 10" in text and "alias" in text


def test_a_notebook_that_hangs_is_stopped(tmp_path):
    path = notebook(tmp_path, IMPORTS, SOLVED, "time.sleep(600)", WRONG)
    result = mark(path, 30)
    assert not result["done"] and result["errors"] == ["stopped after 30 s"]
    assert status(result)["1.1"] == "solved" and status(result)["1.3"] == "not reached"


def test_the_command(tmp_path):
    first = notebook(tmp_path, IMPORTS, SOLVED, name="a.ipynb")
    second = notebook(tmp_path, "1 + 1", name="b.ipynb")
    where = tmp_path / "marks.csv"
    command = [sys.executable, str(ROOT / "tools/mark.py"), "--csv", str(where)]
    said = subprocess.run([*command, str(first), str(second)], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "1 of 10" in said.stdout and "0 of 0" in said.stdout and "no checker" in said.stdout
    assert "a.ipynb,1.1,check_alias,solved,1,1" in where.read_text()
    lost = subprocess.run([*command, str(tmp_path / "none.ipynb")], capture_output=True, text=True)
    assert lost.returncode == 1 and "there is no" in lost.stderr


@pytest.mark.parametrize("path", sorted(NBS.glob("[1-6]_*/*.ipynb")), ids=lambda p: p.stem)
def test_every_chapter_can_be_marked(path):
    assert modules(cells(path)), "no checker is imported"
