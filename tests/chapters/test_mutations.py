"""Every checker rejects worked solutions into which one small mistake was put.

A mistake is one of those that readers make: another sign, an operator or a comparison turned round,
a number one too large, a bound forgotten. Some change nothing that can be seen from outside; so a
checker has to find 65 of 100 of a solution's mistakes, not each.
"""

import ast
import contextlib
import copy
import io
import itertools
import json
import multiprocessing
import os
import random
import re
import runpy
import signal
import sys
from pathlib import Path

import pytest
from course import Notebook, solutions

MOST, SECONDS, SHARE = 12, 10, 0.65  # mistakes for each solution; time for one; found at least

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
    code = re.sub(r"^\s*[%!#].*$", "", Notebook(path).code_text, flags=re.M)
    functions = {
        n.name: ast.unparse(n) for n in ast.parse(code).body if isinstance(n, ast.FunctionDef)
    }
    pairs = re.findall(r"^\s*assert (check_\w+)\((\w+)\)(?! is False)", code, re.M)
    return [
        (check, name, functions[name]) for check, name in dict(pairs).items() if name in functions
    ]


def needed(code: str, roots: set[str]) -> ast.Module:
    """The part of a notebook's code that some names stand on: not what only shows or tries."""
    body, kept = ast.parse(code).body, set()
    binds = [
        {n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        | {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        | {
            n.value.id  # a[k] = ..., a.b = ...
            for n in ast.walk(node)
            if isinstance(n, ast.Subscript | ast.Attribute)
            and isinstance(n.ctx, ast.Store)
            and isinstance(n.value, ast.Name)
        }
        for node in body
    ]
    new = set(roots)
    while new:
        todo, new = new, set()
        for k, node in enumerate(body):
            if k not in kept and binds[k] & todo:
                kept.add(k)
                new |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - roots
        roots = roots | new
    always = lambda n: isinstance(n, ast.Import | ast.ImportFrom) or "manual_seed" in ast.dump(n)
    return ast.Module([n for k, n in enumerate(body) if k in kept or always(n)], [])


def verdicts(path: Path) -> dict[str, list]:
    """For each checker: how many mistakes there were, and those that it took for right."""
    import matplotlib

    def give_up(*_):
        raise TimeoutError

    matplotlib.use("Agg")
    signal.signal(signal.SIGALRM, give_up)
    tried = trials(path)
    roots = {name for check, function, _ in tried for name in (check, function)}
    code = re.sub(r"^\s*[%!].*$", "", Notebook(path).code_text, flags=re.M)
    names: dict = {"__name__": Notebook(path).module}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(needed(code, roots), path.name, "exec"), names)
        told = {}
        for check, name, source in tried:
            exec(source, room := dict(names))
            assert names[check](room[name]), f"{check} rejects the worked solution"
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


PREFORKED = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
PREFORKED.set_forkserver_preload(
    ["matplotlib.pyplot", "pandas", "scipy.signal", "sepbook.mixtures"]
)


@pytest.mark.parametrize("path", wanted(), ids=lambda p: p.stem)
def test_checkers_find_mistakes(path, tmp_path):
    """In a process of its own, with a time limit: a mistake may loop for ever."""
    given = {"GIVEN": str(path), "PUT": str(tmp_path / "told.json")}
    how = {"init_globals": given, "run_name": "__mistakes__"}
    process = PREFORKED.Process(target=runpy.run_path, args=(__file__,), kwargs=how)
    process.start()
    process.join(600)
    if process.is_alive():
        process.kill()
    assert process.exitcode == 0, "see the traceback above"
    told = json.loads((tmp_path / "told.json").read_text())
    assert told
    for check, (total, right) in told.items():
        assert total == 0 or len(right) <= (1 - SHARE) * total, (check, right)


if __name__ == "__mistakes__":
    os.chdir(Path(GIVEN).parent)  # noqa: F821
    Path(PUT).write_text(json.dumps(verdicts(Path(GIVEN))))  # noqa: F821
elif __name__ == "__main__":
    print(json.dumps(verdicts(Path(sys.argv[1]))))
