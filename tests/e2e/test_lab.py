"""Every chapter in JupyterLab, in a real browser: all cells run, and the widgets move.

Needs Chromium (apt-get install chromium); without it the tests are skipped and say so.
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

BROWSER = next(
    (
        p
        for p in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
        if shutil.which(p)
    ),
    None,
)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on the PATH (apt-get install chromium)"
)
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
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
        "--ServerApp.disable_check_xsrf=True",
        f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    home = tmp_path_factory.mktemp("home")
    environment = {"OMP_NUM_THREADS": "1"} | os.environ  # several run side by side
    environment |= {"JUPYTER_CONFIG_DIR": str(home), "JUPYTERLAB_SETTINGS_DIR": str(home)}
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
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


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chrome = play.chromium.launch(executable_path=shutil.which(BROWSER), args=QUIET)
        yield chrome
        chrome.close()


def open_chapter(browser, lab, path):
    """The chapter in a fresh workspace, its kernel ready."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{lab}/lab/workspaces/{path.stem}/tree/nbs/{path.relative_to(NBS)}?reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=300_000)
    page.get_by_text("| Idle").wait_for(timeout=300_000)  # the status bar: the kernel is connected
    page.wait_for_timeout(500)
    return page


def without_outputs(path):
    """Take a notebook's outputs away: what is read after the run comes from the run."""
    nb = json.loads(path.read_text(encoding="utf-8"))
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    path.write_text(json.dumps(nb), encoding="utf-8")


def run_all(page, lab, path):
    """Run > Run All Cells; the code cells, saved in JupyterLab and read from its server."""
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Run All Cells", exact=True).click()
    url = f"{lab}/api/contents/nbs/{path.relative_to(NBS)}?content=1"
    deadline = time.time() + 400
    while True:
        page.wait_for_timeout(1000)
        if page.evaluate(STATUS) == "idle":
            page.keyboard.press("Control+s")
            page.wait_for_timeout(1000)
            with urllib.request.urlopen(url, timeout=60) as answer:
                cells = json.load(answer)["content"]["cells"]
            code = [c for c in cells if c["cell_type"] == "code" and "".join(c["source"]).strip()]
            errors = [o for c in code for o in c["outputs"] if o["output_type"] == "error"]
            assert not errors, errors[0]["evalue"]
            if all(c["execution_count"] for c in code):
                return code
        assert time.time() < deadline, "not every cell has run after six minutes"


def shut_down(lab):
    """End the kernels: a closed page leaves its own running, up to a gigabyte each."""
    with urllib.request.urlopen(f"{lab}/api/sessions", timeout=60) as answer:
        for session in json.load(answer):
            url = f"{lab}/api/sessions/{session['id']}"
            urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=60)


@pytest.mark.parametrize("path", lessons(), ids=lambda p: p.stem)
def test_run_all(browser, lab, path):
    page = open_chapter(browser, lab, path)
    try:
        cells = run_all(page, lab, path)
        SHOTS.mkdir(exist_ok=True)
        page.screenshot(path=str(SHOTS / f"{path.stem}-end.png"))
        shown = [o.get("data", {}).get("text/html", "") for c in cells for o in c["outputs"]]
        assert any("<audio" in "".join(html) for html in shown)
        widgets = move_widgets(page)
        page.screenshot(path=str(SHOTS / f"{path.stem}.png"))
        source = "".join("".join(c["source"]) for c in cells)
        if re.search(r"ipywidgets|widgets\.|mixing_desk|\binteract\b", source):
            assert widgets, "a widget in the source and none on the page"
    finally:
        page.close()
        shut_down(lab)


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
    for key in ("ArrowRight", "ArrowLeft"):  # at its upper end it goes to the left
        page.keyboard.press(key)
        for _ in range(40):
            page.wait_for_timeout(250)
            if handle.get_attribute("aria-valuenow") != before:
                return sliders
    raise AssertionError("the slider does not move")
