"""Every checker is offered in its chapter, passes its solution and rejects a wrong answer."""

import importlib
import re

import pytest
from course import NBS, Notebook, solutions

pairs = [
    p for p in solutions() if (NBS / "solutions" / p.name).exists() and not p.name.startswith("00")
]


def checkers(path) -> list[str]:
    """The checkers that a solutions notebook exports."""
    module = importlib.import_module(f"sepbook.exercises.{path.stem[3:]}")
    return [name for name in dir(module) if name.startswith("check_")]


@pytest.mark.parametrize("path", pairs, ids=lambda p: p.stem)
def test_checkers_are_tried_both_ways(path):
    code = Notebook(path).code_text
    assert checkers(path)
    for name in checkers(path):
        assert re.search(rf"assert {name}\(", code), f"{name}: no worked solution passes"
        assert re.search(rf"assert (?:not {name}\(|{name}\(.*\) is False)", code), (
            f"{name}: no wrong answer fails"
        )


@pytest.mark.parametrize("path", pairs, ids=lambda p: p.stem)
def test_checkers_are_offered_in_the_chapter(path):
    chapter = next(p for p in NBS.rglob(path.name) if "solutions" not in p.parts)
    code = Notebook(chapter).code_text
    for name in checkers(path):
        assert re.search(rf"\b{name}\(", code), f"{name} is not offered"


@pytest.mark.parametrize("path", pairs, ids=lambda p: p.stem)
def test_checkers_explain_themselves(path, capsys):
    module = importlib.import_module(f"sepbook.exercises.{path.stem[3:]}")
    for name in checkers(path):
        assert getattr(module, name)(None) is None
        assert "Hint:" in capsys.readouterr().out
        assert getattr(module, name)(lambda *args, **kwargs: None) is None, "a stub is no answer"
        nothing = getattr(module, name)(lambda *args, **kwargs: [None])
        assert nothing is False, f"{name} accepts nothing"
