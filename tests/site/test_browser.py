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
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest
from course import ROOT

SITE = (ROOT / os.environ.get("SITE", "no site")).resolve()
BROWSER = next(
    (p for p in ("chromium", "chromium-browser", "google-chrome") if shutil.which(p)), None
)
WHOLE = bool(os.environ.get("SITE_WHOLE"))  # a missing site or browser fails, and is not skipped
pytestmark = pytest.mark.skipif(
    not WHOLE and (not (SITE / "index.html").exists() or BROWSER is None),
    reason="no rendered site (make site) or no Chromium",
)
PAGES = (
    sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html")) if SITE.exists() else []
)
SOME = [
    p
    for p in (
        "index.html", "1_foundations/stft.html", "2_classical/nmf.html", "404.html", "licence.html",
        "1_foundations/sound.html", "listening.html", "try.html", "6_practice/leaderboard.html",
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
    if not axe() and not WHOLE:
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


def loaded(page: Path) -> set[Path]:
    """A page with its scripts, styles, pictures and sounds, whether they are asked for or not."""
    html = page.read_text(encoding="utf-8")
    found = re.findall(r'<(?:script|img|audio|source)\b[^>]*?\ssrc="([^"#?]+)', html)
    found += re.findall(r'<link\b[^>]*?rel="stylesheet"[^>]*?href="([^"#?]+)', html)
    found += re.findall(r'<link\b[^>]*?href="([^"#?]+)"[^>]*?rel="stylesheet"', html)
    files = [SITE / x.removeprefix(BASE + "/") if x[0] == "/" else page.parent / x for x in found]
    return {page, *(f.resolve() for f in files if ":" not in f.name and f.exists())}


def test_small_enough():
    """The site without the networks of *Try it*; a page as it opens, and all that is its own."""
    files = [p for p in SITE.rglob("*") if p.is_file() and "models" not in p.parts]
    assert sum(p.stat().st_size for p in files) < 80 * MEGABYTE
    for name in PAGES:
        parts = loaded(SITE / name)  # scripts and styles are fetched once for the whole site
        shared = {p for p in parts if {"site_libs", "assets"} & set(p.relative_to(SITE).parts)}
        opened = sum(p.stat().st_size for p in parts if p.suffix != ".mp3")
        own = sum(p.stat().st_size for p in parts - shared)  # all its sounds, played or not
        assert max(opened, own) < 3 * MEGABYTE, (name, opened, own)
    copies = Counter(p.read_bytes() for p in (SITE / "media").iterdir())
    assert max(copies.values()) == 1, "a sound or picture is stored twice"


def test_home_is_short(browser, address):
    """A screen and a half, with every chapter, what needs what, and a sound on each card."""
    page, _, said = open_page(browser, address, "index.html", 1400)
    assert page.evaluate("document.documentElement.scrollHeight") < 3000
    chapters = page.locator(".card-chapter > a")
    numbers = {int(x.split()[0]) for x in chapters.all_inner_texts()}
    assert len(numbers) >= 33 and page.locator(".home-map [data-node]").count() == len(numbers)
    assert page.locator(".home-figures > div").count() == 8
    assert page.locator("button.hear").count() == chapters.count()
    button = page.locator("button.hear").first
    button.click()
    page.wait_for_function("document.querySelector('button.hear').ariaPressed === 'true'")
    page.locator("button.hear").nth(1).click()  # one at a time
    page.wait_for_function(
        "document.querySelectorAll('button.hear[aria-pressed=true]').length == 1"
    )
    assert button.get_attribute("aria-pressed") == "false"
    page.locator(".home-map [data-node='43']").hover()  # Conv-TasNet builds on TasNet, not on NMF
    on = page.locator(".home-map [data-node].on").evaluate_all("x => x.map(e => e.dataset.node)")
    assert {"42", "23", "49"} <= set(on) and "13" not in on and not said
    page.close()


ROUND = """() => {
  const box = document.querySelector('.sepbook-blind'), scores = JSON.parse(box.dataset.scores);
  const src = name => [...box.querySelectorAll('figure')]
    .find(f => f.querySelector('figcaption').textContent === name)?.querySelector('audio').src;
  const player = [...document.querySelectorAll('.sepbook-player')].find(p =>
    !box.contains(p) && ['A', 'B', 'target'].every(n =>
      [...p.querySelectorAll('figure > audio')].some(a => a.src === src(n))));
  const of = scores[player.querySelector('strong').textContent];
  const named = [...player.querySelectorAll('figure')].map(f =>
    [f.querySelector('figcaption').textContent, f.querySelector('audio').src]);
  const score = name => of[named.find(([n, s]) => n in of && s === src(name))[0]];
  return [score('A'), score('B')];
}"""


def test_blind_test_counts_what_was_chosen(browser, address):
    """Played through: five times with SI-SDR, twice against it, once without an answer."""
    page, _, said = open_page(browser, address, "listening.html", 1400)
    box = page.locator(".sepbook-blind")
    rounds = int(box.get_attribute("data-rounds"))
    box.get_by_role("button", name="Start").click()
    wide = [0, 0]
    for k in range(rounds):
        assert f"Round {k + 1} of {rounds}" in box.inner_text()
        names = set(box.locator(".tracks label").all_inner_texts())
        assert {"A", "B"} <= names <= {"A", "B", "target", "mixture"}  # no name is given away
        a, b = page.evaluate(ROUND)
        assert abs(a - b) >= 1
        if k == 0:  # the clips run, and a switch does not stop them
            box.get_by_role("button", name="Play").click()
            box.get_by_role("button", name="Pause").wait_for()
            box.get_by_label("B", exact=True).check()
            assert box.get_by_role("button", name="Pause").count() == 1
        if k == rounds - 1:
            box.get_by_role("button", name="I hear no difference").click()
            continue
        with_it = k < rounds - 3
        better, worse = ("A", "B") if a > b else ("B", "A")
        box.get_by_role("button", name=better if with_it else worse, exact=True).click()
        if abs(a - b) >= 3:
            wide[0] += with_it
            wide[1] += 1
    told = box.get_by_role("status").inner_text()
    assert f"agree in {rounds - 3} of {rounds - 1} rounds" in told
    assert f"apart or more, in {wide[0]} of {wide[1]}." in told
    assert box.locator("tbody tr").count() == rounds and not said
    box.get_by_role("button", name="Once more").click()
    assert f"Round 1 of {rounds}" in box.inner_text()
    page.close()


def test_small_widgets(browser, address):
    """The desk plays; the scissors cut: both parts together have the energy of the whole."""
    page, _, said = open_page(browser, address, "1_foundations/sound.html", 1400)
    desk = page.locator(".sepbook-desk")
    assert desk.locator("fieldset").count() == 4
    desk.get_by_role("button", name="Play").click()
    desk.get_by_role("button", name="Pause").wait_for()
    page.close()
    for name, count in (
        ("1_foundations/stft", 2),
        ("1_foundations/masks", 1),
        ("2_classical/denoising", 1),
    ):
        page, _, more = open_page(browser, address, f"{name}.html", 1400)
        boxes = page.locator(".sepbook-scissors")
        assert boxes.count() == count
        for k in range(count):
            boxes.nth(k).scroll_into_view_if_needed()
            boxes.nth(k).locator("canvas").wait_for()
        level = {}
        for button in ("Only the box", "Without the box", "All"):
            boxes.first.get_by_role("button", name=button).click()
            level[button] = 10 ** (float(boxes.first.get_attribute("data-level")) / 10)
        parts = level["Only the box"] + level["Without the box"]
        assert 0.9 < parts / level["All"] < 1.1 and level["Only the box"] < 0.97 * level["All"]
        assert not more
        page.close()
    assert not said


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


def test_nothing_is_left_out():
    """Where the site is to be published: pages, networks, axe-core, and a processed site."""
    if not WHOLE:
        pytest.skip("SITE_WHOLE is not set")
    assert axe() and list((SITE / "assets/models").glob("*.onnx")) and len(PAGES) > 100


def test_index_is_json():
    assert len(json.loads((SITE / "search.json").read_text(encoding="utf-8"))) > 1500
