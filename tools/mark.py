"""Mark notebooks: run each with its checkers, and count the points of what is solved.

    python tools/mark.py alice.ipynb bob.ipynb          a table for each notebook, and one of all
    python tools/mark.py --seconds 300 --csv marks.csv students/*.ipynb

A notebook runs in a process and a temporary folder of its own, and is stopped after --seconds. An
exercise is worth as many points as it is difficult. What has no checker (text, listening) is not
counted. A student's notebook is a program: run those of people that you don't trust in a container.
"""

import argparse
import ast
import contextlib
import csv
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOLVED, WRONG, TO_DO, STOPPED = "solved", "not yet", "to do", "not reached"


def cells(path: Path) -> list[str]:
    """The code of a notebook, without what only Jupyter understands."""
    nb = json.loads(path.read_text(encoding="utf-8"))
    code = ["".join(c["source"]) for c in nb["cells"] if c["cell_type"] == "code"]
    return [re.sub(r"^\s*[%!].*$", "pass", text, flags=re.M) for text in code]


def modules(code: list[str]) -> list[str]:
    """The modules of checkers that a notebook imports from, in order."""
    names = re.findall(
        r"^\s*from (sepbook\.exercises\.(?!core\b)\w+) import", "\n".join(code), re.M
    )
    return list(dict.fromkeys(names))


def run(path: Path, report: Path) -> None:
    """In the child: execute the cells, and write each verdict down as soon as there is one."""
    os.environ["MPLBACKEND"] = "Agg"
    from sepbook.exercises import core

    def tell(**what):
        with open(report, "a", encoding="utf-8") as out:
            out.write(json.dumps(what) + "\n")

    original, known = core.checker, []

    def checker(number: str, difficulty: int, minutes: int, hint: str):
        decorate = original(number, difficulty, minutes, hint)

        def decorated(check):
            check_answer = decorate(check)

            def recorded(answer=None):
                verdict = check_answer(answer)
                if answer is not None:
                    tell(number=number, verdict=verdict)
                return verdict

            recorded.__dict__.update(check_answer.__dict__)
            known.append({"number": number, "name": check.__name__, "points": difficulty})
            return recorded

        return decorated

    core.checker = checker
    code = cells(path)
    for module in modules(code):
        importlib.import_module(module)
    tell(exercises=known)
    space = {"__name__": "__main__"}
    for i, text in enumerate(code):
        try:
            exec(compile(ast.parse(text), f"<cell {i + 1}>", "exec"), space)
        except Exception as error:
            tell(error=f"code cell {i + 1}: {type(error).__name__}: {error}".split("\n")[0])
    tell(done=True)


def mark(path: Path, seconds: float = 300) -> dict:
    """Run one notebook: its exercises with status and points, its errors, whether it ended."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        report.touch()
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        process = subprocess.Popen(
            [sys.executable, __file__, "--child", str(path.resolve()), str(report)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            said = process.communicate(timeout=seconds)[1].decode(errors="replace").strip()
        except subprocess.TimeoutExpired:
            said = f"stopped after {seconds:g} s"
        finally:
            if hasattr(os, "killpg"):  # whatever the notebook has started goes with it
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.communicate()
        lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    done = any("done" in line for line in lines)
    errors = [line["error"] for line in lines if "error" in line]
    if not done:
        errors.append(said.splitlines()[-1] if said else "the process ended early")
    exercises = next((line["exercises"] for line in lines if "exercises" in line), [])
    for exercise in exercises:
        heard = [x["verdict"] for x in lines if x.get("number") == exercise["number"]]
        best = True if True in heard else False if False in heard else None
        missing = TO_DO if done or heard else STOPPED
        exercise["status"] = {True: SOLVED, False: WRONG, None: missing}[best]
    exercises.sort(key=lambda e: [int(n) for n in e["number"].split(".")])
    return {"notebook": path.name, "exercises": exercises, "errors": errors, "done": done}


def points(result: dict) -> tuple[int, int]:
    """Points reached, and points there are."""
    reached = sum(e["points"] for e in result["exercises"] if e["status"] == SOLVED)
    return reached, sum(e["points"] for e in result["exercises"])


def table(result: dict) -> str:
    lines = [result["notebook"]]
    for e in result["exercises"]:
        got = e["points"] if e["status"] == SOLVED else 0
        name = e["name"].removeprefix("check_")
        lines.append(f"  {e['number']:>6}  {name:<24}{e['status']:<12}{got} of {e['points']}")
    if not result["exercises"]:
        lines.append("  no checker: the notebook imports nothing from sepbook.exercises")
    reached, all_points = points(result)
    lines.append(f"  {'':>6}  {'in all':<36}{reached} of {all_points}")
    return "\n".join(lines + [f"  ! {e}" for e in result["errors"]])


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return run(Path(sys.argv[2]), Path(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=300, help="time limit of one notebook")
    parser.add_argument("--csv", type=Path, help="write a line per exercise to this file")
    given = parser.parse_args()
    missing = [p for p in given.notebooks if not p.exists()]
    if missing:
        sys.exit(f"there is no {missing[0]}")
    results = []
    for path in given.notebooks:
        results.append(mark(path, given.seconds))
        print(table(results[-1]), flush=True)
    if len(results) > 1:
        print("\nall notebooks")
        for r in results:
            print(f"  {r['notebook']:<40}{points(r)[0]} of {points(r)[1]}")
    if given.csv:
        with open(given.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["notebook", "exercise", "name", "status", "points", "of"])
            for r in results:
                for e in r["exercises"]:
                    got = e["points"] if e["status"] == SOLVED else 0
                    writer.writerow(
                        [r["notebook"], e["number"], e["name"], e["status"], got, e["points"]]
                    )


if __name__ == "__main__":
    main()
