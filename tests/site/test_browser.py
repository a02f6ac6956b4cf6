"""The rendered site in a browser: nobody else is asked, nothing is cut off, everyone can use it.

`make site` runs it on _docs (SITE says where the site is); without a site or without Chromium it is
skipped. axe-core is tried where npm has put it: `npm install axe-core`, or AXE=path/to/axe.min.js.
"""

import functools
import http.server
import json
import os
import re
import shutil
import threading
from pathlib import Path
from urllib.parse import unquote

import pytest
from course import ROOT

SITE = (ROOT / os.environ.get("SITE", "no site")).resolve()
BROWSER = next(
    (p for p in ("chromium", "chromium-browser", "google-chrome") if shutil.which(p)), None
)
pytestmark = pytest.mark.skipif(
    not (SITE / "index.html").exists() or BROWSER is None,
    reason="no rendered site (make site) or no Chromium",
)
PAGES = (
    sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html")) if SITE.exists() else []
)
SOME = [
    p
    for p in (
        "index.html", "1_foundations/stft.html", "2_classical/nmf.html", "404.html", "licence.html",
        "listening.html", "try.html", "leaderboard.html",
    )
    if p in PAGES
]  # fmt: skip
BASE = "/sepbook"  # doc_baseurl of settings.ini
MEGABYTE = 1_000_000
# What sticks out of the page to the right, unless it scrolls inside a box of its own.
STICKS_OUT = """() => {
  const boxed = e => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
    if (getComputedStyle(p).overflowX !== 'visible') return true; return false; };
  const wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= wide) return [];
  const out = e => { const r = e.getBoundingClientRect(); return r.width && r.right > wide + 1; };
  return [...document.querySelectorAll('body *')].filter(e => out(e) && !boxed(e)).slice(0, 5)
    .map(e => e.outerHTML.slice(0, 120)).concat('too wide');
}"""
# Outputs that can be read in part only, on a screen as wide as a laptop's.
CUT = """() => [...document.querySelectorAll('.cell-output')].filter(e =>
  [e, ...e.querySelectorAll('*')].some(x => x.scrollWidth > x.clientWidth + 2
    && x.clientWidth > 0 && getComputedStyle(x).overflowX !== 'visible'
    && !x.closest('math, svg, audio, .visually-hidden')))
  .map(e => e.textContent.trim().slice(0, 80))"""


@pytest.fixture(scope="module")
def address():
    class Quiet(http.server.SimpleHTTPRequestHandler):
        """The site below the path that it will have; errors of a browser that left are no news."""

        def log_message(self, *_):
            pass

        def translate_path(self, path):
            return super().translate_path(path.removeprefix(BASE) or "/")

        def send_head(self):
            try:
                return super().send_head()
            except BrokenPipeError:
                return None

    handler = functools.partial(Quiet, directory=str(SITE))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{BASE}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(
            executable_path=shutil.which(BROWSER), args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


def open_page(browser, address, name, width, scheme="light"):
    """A page, and what it asked for or complained about."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, said = [], []
    page.on("request", lambda r: asked.append(r.url))
    page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: said.append(str(e)))
    page.goto(f"{address}/{name}")
    page.wait_for_load_state("load")
    outside = [u for u in asked if not u.startswith((address, "data:", "blob:"))]
    return page, outside, said


@pytest.mark.parametrize("name", PAGES)
def test_on_a_laptop_and_on_a_phone(name, browser, address):
    page, outside, said = open_page(browser, address, name, 1400)
    try:
        assert not outside and not said
        assert not page.evaluate(CUT)
        assert not page.evaluate(STICKS_OUT)
        lengths = page.evaluate(
            "Promise.all([...document.querySelectorAll('audio[src]')].map(a => a.readyState"
            " ? a.duration : new Promise(r => { a.onloadedmetadata = () => r(a.duration);"
            " a.onerror = () => r(0); a.preload = 'metadata'; a.load(); })))"
        )
        assert all(x > 0 for x in lengths)
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(100)
        assert not page.evaluate(STICKS_OUT)
        page.evaluate("document.querySelectorAll('main details').forEach(d => d.open = true)")
        page.wait_for_timeout(100)
        assert not page.evaluate(STICKS_OUT)
    finally:
        page.close()


def axe() -> str | None:
    places = [os.environ.get("AXE"), ROOT / "node_modules/axe-core/axe.min.js"]
    places += [Path(p) / "axe-core/axe.min.js" for p in os.environ.get("NODE_PATH", "").split(":")]
    found = next((Path(p) for p in places if p and Path(p).exists()), None)
    return found.read_text(encoding="utf-8") if found else None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SOME)
def test_accessible(name, scheme, browser, address):
    if not axe():
        pytest.skip("no axe-core (npm install axe-core)")
    page, _, _ = open_page(browser, address, name, 1400, scheme)
    page.wait_for_load_state("networkidle")
    page.evaluate(axe())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    page.close()
    assert not [(v["id"], v["nodes"][0]["html"][:200]) for v in found]


def test_links_are_whole():
    """Every link inside the site leads to a page, and every anchor to a place on it."""
    ids, broken = {}, []
    for name in PAGES:
        html = (SITE / name).read_text(encoding="utf-8")
        ids[name] = set(re.findall(r'\bid="([^"]+)"', html))
    for name in PAGES:
        html = (SITE / name).read_text(encoding="utf-8")
        for target in set(re.findall(r'<a\b[^>]*?\shref="([^"]*)"', html)):
            if re.match(r"[a-z]+:|//", target) or target in ("", "#"):
                continue
            path, _, anchor = unquote(target).partition("#")
            path = path.removeprefix(BASE)
            base = SITE if path.startswith("/") else (SITE / name).parent
            file = (base / path.lstrip("/").split("?")[0]).resolve() if path else SITE / name
            file = file / "index.html" if file.is_dir() else file
            there = file.relative_to(SITE).as_posix() if file.is_relative_to(SITE) else ""
            if not file.exists() or (anchor and there in ids and anchor not in ids[there]):
                broken.append((name, target))
    assert not broken


def test_small_enough():
    files = [p for p in SITE.rglob("*") if p.is_file() and "models" not in p.parts]
    assert sum(p.stat().st_size for p in files) < 80 * MEGABYTE
    for name in PAGES:
        page = SITE / name
        folders = [
            *page.parent.glob(f"[0-9]*_{page.stem}_files"),
            page.parent / f"{page.stem}_files",
        ]
        pictures = [p for folder in folders for p in folder.rglob("*.*")]
        weight = sum(p.stat().st_size for p in [page, *pictures])
        assert weight < 3 * MEGABYTE, name


def test_search_finds_the_definition_first(browser, address):
    """The first hit that is no whole page (a chapter named like its network) is the definition."""
    page, _, _ = open_page(browser, address, "index.html", 1400)
    for word, where in (
        ("overlap_add", "overlap_add"),
        ("ConvTasNet", "ConvTasNet"),
        ("fit", "fit"),
    ):
        page.goto(f"{address}/index.html")
        page.locator("#quarto-search button").first.click()
        page.locator(".aa-Input").fill(word)
        page.wait_for_selector(".aa-Panel .aa-Item")
        page.wait_for_timeout(500)
        links = page.locator(".aa-Panel .aa-Item a.search-result-link").all()
        hits = [x.get_attribute("href") for x in links[:2]]
        inside = next(h for h in hits if "#" in h)
        assert re.search(rf"#sepbook\.[\w.]*\b{where}$", inside), hits
    page.close()


def test_index_is_json():
    assert len(json.loads((SITE / "search.json").read_text(encoding="utf-8"))) > 1500
