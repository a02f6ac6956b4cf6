"""Every checker rejects worked solutions into which one small mistake was put.

A mistake is one of those that readers make: another sign, an operator or a comparison turned round,
a number one too large, a bound forgotten. Some change nothing that can be seen from outside; so a
checker has to find at least half of a solution's mistakes, not each.
"""

import ast
import contextlib
import copy
import io
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from course import Notebook, solutions

MOST, SECONDS, SHARE = 12, 10, 0.6  # mistakes for each solution; time for one; found at least

SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def places(tree: ast.AST):
    """Where a mistake can be put: functions that put it there, by the node's place in the tree."""
    for index, node in enumerate(ast.walk(tree)):
        if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
            yield index, lambda n: setattr(n, "op", SWAPS[type(n.op)]())
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            yield index, lambda n: setattr(n, "ops", [SWAPS[type(n.ops[0])](), *n.ops[1:]])
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            yield index, lambda n: setattr(n, "op", ast.UAdd())
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield index, lambda n: setattr(n, "value", n.value + 1)


def mutants(source: str) -> list[str]:
    """Up to MOST versions of a function with one mistake each, drawn with a seed."""
    tree = ast.parse(source)
    found = list(places(tree))
    random.Random(0).shuffle(found)
    made = []
    for index, change in found[:MOST]:
        wrong = copy.deepcopy(tree)
        change(next(itertools.islice(ast.walk(wrong), index, None)))
        made.append(ast.unparse(ast.fix_missing_locations(wrong)))
    return made


def trials(path: Path) -> list[tuple[str, str, str]]:
    """(checker, function, its source) for each worked solution of a notebook."""
    code = "\n".join(
        re.sub(r"^\s*[%!#].*$", "", c["text"], flags=re.M) for c in Notebook(path).code
    )
    functions = {
        n.name: ast.unparse(n) for n in ast.parse(code).body if isinstance(n, ast.FunctionDef)
    }
    pairs = re.findall(r"^\s*assert (check_\w+)\((\w+)\)(?! is False)", code, re.M)
    return [
        (check, name, functions[name]) for check, name in dict(pairs).items() if name in functions
    ]


def verdicts(path: Path) -> dict[str, list]:
    """For each checker: the mistakes that it took for right, and how many there were."""
    import matplotlib

    def give_up(*_):
        raise TimeoutError

    matplotlib.use("Agg")
    signal.signal(signal.SIGALRM, give_up)
    module = Notebook(path).module
    names: dict = {"__name__": module}
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in Notebook(path).code:
            if "default_exp" not in cell["text"]:
                exec(compile(cell["text"], path.name, "exec"), names)
        told = {}
        for check, name, source in trials(path):
            right, wrong = [], mutants(source)
            for mutant in wrong:
                room = dict(names)
                signal.alarm(SECONDS)
                try:
                    exec(mutant, room)
                    if names[check](room[name]):
                        right.append(mutant)
                except Exception:
                    continue  # it does not even start, or never ends
                finally:
                    signal.alarm(0)
            told[check] = [len(wrong), right]
    return told


def wanted() -> list:
    return [p for p in solutions() if not p.name.startswith("00") and trials(p)]


@pytest.mark.parametrize("path", wanted(), ids=lambda p: p.stem)
def test_checkers_find_mistakes(path):
    """In a process of its own, with a time limit: a mistake may loop for ever."""
    done = subprocess.run(
        [sys.executable, __file__, str(path)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=path.parent,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.returncode == 0, done.stderr[-1500:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told
    for check, (total, right) in told.items():
        assert total == 0 or len(right) <= (1 - SHARE) * total, (check, right)


if __name__ == "__main__":
    print(json.dumps(verdicts(Path(sys.argv[1]))))
