"""Every chapter in JupyterLab, in a real browser: all cells run, and the widgets move.

Screenshots go to test-results/.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from course import NBS, ROOT, lessons

SHOTS = ROOT / "test-results"
STATUS = "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab server over a copy of the course: running the cells changes nothing here."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(NBS, folder / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copytree(ROOT / "results", folder / "results")
    for path in lessons():
        without_outputs(folder / "nbs" / path.relative_to(NBS))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.password=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    home = tmp_path_factory.mktemp("home")
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home),
        "JUPYTERLAB_SETTINGS_DIR": str(home),
    }
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
    address = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{address}/api", timeout=2)
            break
        except OSError:
            time.sleep(0.5)
    else:
        server.kill()
        pytest.fail((folder / "lab.log").read_text()[-2000:])
    yield address
    server.terminate()
    server.wait(timeout=30)


def without_outputs(path):
    """Take a notebook's outputs away: what is read after the run comes from the run."""
    nb = json.loads(path.read_text(encoding="utf-8"))
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    path.write_text(json.dumps(nb), encoding="utf-8")


def open_chapter(browser, lab, path):
    """The chapter in a fresh workspace, its kernel ready."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{lab}/lab/workspaces/{path.stem}/tree/nbs/{path.relative_to(NBS)}?reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.get_by_text("| Idle").wait_for(timeout=90_000)  # the status bar: the kernel is connected
    page.wait_for_timeout(500)
    return page


def run_all(page):
    """Run > Run All Cells, and wait until the kernel has been idle for a while."""
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Run All Cells", exact=True).click()
    page.wait_for_timeout(1500)
    still, deadline = 0, time.time() + 240
    while still < 4 and time.time() < deadline:
        still = still + 1 if page.evaluate(STATUS) == "idle" else 0
        page.wait_for_timeout(500)
    assert still >= 4, "the kernel is still busy after four minutes"


def cells_of(lab, path, page):
    """The notebook's code cells after the run: saved in JupyterLab, read from its server."""
    page.keyboard.press("Control+s")
    page.wait_for_timeout(2500)
    url = f"{lab}/api/contents/nbs/{path.relative_to(NBS)}?content=1"
    with urllib.request.urlopen(url, timeout=30) as answer:
        content = json.load(answer)["content"]
    return [
        c for c in content["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()
    ]


@pytest.mark.parametrize("path", lessons(), ids=lambda p: p.stem)
def test_run_all(browser, lab, path):
    page = open_chapter(browser, lab, path)
    run_all(page)
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=str(SHOTS / f"{path.stem}-end.png"))
    cells = cells_of(lab, path, page)
    errors = [o for c in cells for o in c["outputs"] if o["output_type"] == "error"]
    assert not errors, errors[0]["evalue"]
    assert all(c["execution_count"] for c in cells), "not every cell ran"
    assert any(
        "<audio" in "".join(o.get("data", {}).get("text/html", ""))
        for c in cells
        for o in c["outputs"]
    )
    widgets = move_widgets(page)
    page.screenshot(path=str(SHOTS / f"{path.stem}.png"))
    source = "".join("".join(c["source"]) for c in cells)
    if re.search(r"ipywidgets|widgets\.|mixing_desk|\binteract\b", source):
        assert widgets, "a widget in the source and none on the page"
    page.close()


def move_widgets(page) -> int:
    """Move the first slider by keyboard and see its value change; return how many there are."""
    sliders = 0
    panel = page.locator(".jp-WindowedPanel-outer").first
    for _ in range(200):  # the notebook is windowed: scroll until a slider is drawn
        sliders = page.locator(".jp-OutputArea .noUi-handle").count()
        if sliders:
            break
        if not panel.evaluate(
            "e => { const y = e.scrollTop; e.scrollTop += 700; return e.scrollTop > y; }"
        ):
            break
        page.wait_for_timeout(120)
    if not sliders:
        return page.locator(".jp-OutputArea .jupyter-widgets").count()
    handle = page.locator(".jp-OutputArea .noUi-handle").first
    handle.scroll_into_view_if_needed()
    before = handle.get_attribute("aria-valuenow")
    handle.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    page.wait_for_timeout(3000)
    after = page.locator(".jp-OutputArea .noUi-handle").first.get_attribute("aria-valuenow")
    if before == after:  # at its upper end
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(2000)
        after = page.locator(".jp-OutputArea .noUi-handle").first.get_attribute("aria-valuenow")
    assert before != after, "the slider does not move"
    return sliders
