"""The page "Try it here" in a real browser: what it gives is what the package gives.

Needs Chromium, npm (for ONNX Runtime) and the packages that write ONNX files; without them the
tests are skipped and say so. What is made for them is kept below test-results/.
"""

import contextlib
import functools
import http.server
import shutil
import sys
import threading

import psutil
import pytest
import soundfile as sf
import torch
from course import NBS, ROOT

import sepbook
from sepbook.engine.examples import example_noisy, example_readers, example_track
from sepbook.engine.show import player_assets

pytestmark = [
    pytest.mark.skipif(not shutil.which("npm"), reason="no npm on the PATH"),
    pytest.mark.xdist_group("try"),  # what is made for them is made once
]
ENDED = (
    "/^(Done|It did|Your browser|Stopped)/.test(document.querySelector('.try-status').textContent)"
)
PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8>"
    '<meta name=viewport content="width=device-width">'
)


@pytest.fixture(scope="module")
def site():
    """The address of a server of the page and what it needs."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    sys.path.insert(0, str(ROOT / "tools"))
    import try_it

    folder = ROOT / "test-results" / "try"
    (folder / "assets").mkdir(parents=True, exist_ok=True)
    try_it.make(folder / "assets")
    for script in (NBS / "assets").glob("try*.js"):
        shutil.copy(script, folder / "assets")
    body = f'<main><h1>Try</h1><div id="try-it">no scripts</div></main>{player_assets()}'
    script = '<script type="module" src="assets/try.js"></script>'
    (folder / "index.html").write_text(f"{PAGE}<title>t</title><body>{body}{script}")
    (folder / "bare").mkdir(exist_ok=True)
    (folder / "bare" / "index.html").write_text(f"{PAGE}<title>t</title><body>{body}{script}")
    shutil.copytree(NBS / "assets", folder / "bare" / "assets", dirs_exist_ok=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    serve = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    server.handle_error = lambda *connection: None  # a page that stops hangs up
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def page(browser, site):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))

    def ask(request):
        own = request.url.startswith((site, "blob:", "data:"))
        if request.method != "GET" or not own:
            page.faults.append(f"{request.method} {request.url}")

    page.on("request", ask)
    page.goto(f"{site}/index.html")
    page.get_by_role("radio").first.wait_for()
    yield page
    assert not page.faults
    page.close()


def separated(page, model: str, path) -> dict[str, torch.Tensor]:
    """Give the page a file, wait, and download what it made: {source: (channel, time)}."""
    page.locator(f"input[value={model}]").check()
    page.set_input_files("#try-file", path)
    page.wait_for_function(ENDED, timeout=500_000)
    said = page.locator(".try-status").inner_text()
    assert said.startswith("Done"), said
    stems = {}
    for link in page.locator(".try-files a").all():
        with page.expect_download() as download:
            link.click()
        name = download.value.suggested_filename.removesuffix(".wav").split("-")[-1]
        wave, _ = sf.read(download.value.path(), dtype="float32", always_2d=True)
        stems[name] = torch.from_numpy(wave.T.copy())
    return stems


def clip(model: str, rate: int, seconds: float, channels: int) -> torch.Tensor:
    """An unseen recording, as long as wanted; its second channel is softer and late."""
    make = {"music": example_track, "speech": example_readers, "denoise": example_noisy}[model]
    mix = make(sample_rate=rate).mix
    time = round(seconds * rate)
    mix = mix.repeat(1, -(-time // mix.shape[1]))[:, :time]
    return torch.cat([mix, 0.7 * mix.roll(50, -1)])[:channels]


@pytest.mark.parametrize(
    "model, rate, seconds, channels, bar",
    [
        ("music", 22050, 12.0, 1, 1e-3),  # two segments
        ("music", 44100, 3.0, 2, 5e-3),  # the two resamplers differ a little
        ("speech", 8000, 6.0, 1, 1e-3),
        ("speech", 8000, 5.0, 2, 1e-3),
        ("denoise", 16000, 12.0, 1, 1e-3),
    ],
)
def test_page_gives_what_the_package_gives(page, tmp_path, model, rate, seconds, channels, bar):
    mix = clip(model, rate, seconds, channels)
    sf.write(tmp_path / "a.wav", mix.T.numpy(), rate, "FLOAT")
    got = separated(page, model, tmp_path / "a.wav")
    want = sepbook.separate(model, mix, rate, progress=False)
    assert got.keys() == want.keys()
    for name, wav in want.items():
        assert got[name].shape == wav.shape
        assert (got[name] - wav).abs().max() < bar * wav.abs().max(), name
    player = page.locator(".try-results [role=group]")
    assert player.get_by_role("radio").count() == 1 + len(want)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_thirty_seconds_of_stereo(page, tmp_path):
    """Four times its length at most, in processor time; under 1.5 GB in each browser process."""
    mix = clip("music", 44100, 30.0, 2)
    sf.write(tmp_path / "a.wav", mix.T.numpy(), 44100, "FLOAT")
    peak, ended = [0], threading.Event()
    took, before = {}, {}  # processor seconds of each process

    def watch():
        while not ended.wait(0.2):
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    peak[0] = max(peak[0], child.memory_info().rss)
                    took[child.pid] = sum(child.cpu_times()[:2])
                    before.setdefault(child.pid, took[child.pid])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        got = separated(page, "music", tmp_path / "a.wav")
    finally:
        ended.set()
        watcher.join()
    seconds = sum(took.values()) - sum(before.values())
    print(f"\n30 s of stereo: {seconds:.0f} s, peak {peak[0] / 1e6:.0f} MB")
    assert 0 < seconds < 120 and peak[0] < 1.5e9
    assert all(wav.shape == mix.shape for wav in got.values())


def test_the_example_and_what_can_not_be_read(page, tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"no sound at all" * 100)
    page.set_input_files("#try-file", tmp_path / "a.mp3")
    page.wait_for_function(ENDED)
    assert "can't read a.mp3" in page.locator(".try-status").inner_text()
    page.locator("input[value=speech]").check()
    page.get_by_role("button", name="example").click()
    page.get_by_role("button", name="Stop").click()
    assert page.locator(".try-status").inner_text() == "Stopped."
    page.get_by_role("button", name="example").click()
    page.wait_for_function(ENDED, timeout=200_000)
    page.wait_for_function("document.querySelectorAll('.try-files a').length == 2")


def test_without_the_networks_it_says_so(browser, site):
    page = browser.new_page()
    page.goto(f"{site}/bare/index.html")
    page.get_by_text("tools/try_it.py").wait_for()
    page.close()
