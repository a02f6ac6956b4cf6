"""The flip book in a real browser: flips by keyboard, says its value, and fits a phone."""

import pytest
import torch

from sepbook.engine.show import flip_book, player_assets, small_spectrogram

LOOK = {"light": "color:#212529;background:#fff", "dark": "color:#dee2e6;background:#222"}
VALUES = ["200 Hz", "500 Hz", "900 Hz"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page with two books, one with sounds, and the script of the players beside them."""
    time = torch.arange(24000) / 8000
    waves = [0.1 * torch.sin(2 * torch.pi * int(v.split()[0]) * time)[None] for v in VALUES]
    frames = [small_spectrogram(wav, 8000, 1.0) for wav in waves]
    heard = flip_book(frames, "Tone", VALUES, "A tone of {}", 1, waves, 8000).data
    seen = flip_book(frames, "Picture", VALUES, "A line at {}").data
    file = tmp_path_factory.mktemp("flip") / "page.html"
    head = '<!doctype html><html lang="en"><meta charset=utf-8><title>t</title>'
    file.write_text(f"{head}<body><main>{heard}{seen}</main>{player_assets()}")
    return file.as_uri()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda r: page.faults.append(r.url) if r.url.startswith("http") else None)
    page.goto(address)
    yield page
    assert not page.faults
    page.close()


def shown(page) -> list[str]:
    return [p.get_attribute("alt") for p in page.locator("img").all() if p.is_visible()]


def test_flips_by_keyboard_and_says_so(page):
    page.keyboard.press("Tab")
    slider = page.get_by_role("slider", name="Tone", exact=True)
    assert slider.evaluate("e => e === document.activeElement")
    assert shown(page) == ["A tone of 500 Hz", "A line at 200 Hz"]
    page.keyboard.press("ArrowRight")
    assert shown(page) == ["A tone of 900 Hz", "A line at 200 Hz"]  # the other book stays
    assert slider.get_attribute("aria-valuetext") == "900 Hz"
    assert page.get_by_role("status").first.inner_text() == "900 Hz"
    page.evaluate("document.addEventListener('keydown', () => (window.leaked = true))")
    page.keyboard.press("Home")
    assert not page.evaluate("window.leaked"), "JupyterLab would move to another cell"
    assert shown(page)[0] == "A tone of 200 Hz"


def test_the_sound_goes_on(page):
    play = "k => document.querySelectorAll('audio')[k].play()"
    where = "k => (a => [a.paused, a.currentTime])(document.querySelectorAll('audio')[k])"
    page.evaluate(play, 1)
    page.wait_for_timeout(800)
    before = page.evaluate(where, 1)[1]
    page.get_by_role("slider", name="Tone").press("ArrowRight")
    page.wait_for_timeout(300)
    assert page.evaluate(where, 1)[0], "two sounds at once"
    paused, now = page.evaluate(where, 2)
    assert not paused and 0.3 < before <= now < before + 1.5
    page.evaluate("document.querySelectorAll('audio')[2].pause()")
    page.get_by_role("slider", name="Tone").press("ArrowLeft")
    assert page.evaluate(where, 1)[0], "flipping starts what was not playing"


@pytest.mark.parametrize("theme", LOOK)
def test_fits_a_phone_and_takes_the_colours_of_the_page(page, theme):
    page.evaluate(f"document.body.style = '{LOOK[theme]}'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for text in page.locator(".sepbook-flip :is(label, output)").all():
        both = "e => [getComputedStyle(e).color, getComputedStyle(document.body).color]"
        mine, ours = text.evaluate(both)
        assert mine == ours
    box = page.get_by_role("slider", name="Tone").bounding_box()
    assert box["height"] >= 24 and box["width"] >= 140  # a finger finds it


def test_without_scripts_the_start_is_shown(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert shown(page) == ["A tone of 500 Hz", "A line at 200 Hz"]
    assert not page.locator("input").first.is_visible()
    assert page.get_by_text("500 Hz").first.is_visible()
    assert page.locator("audio").nth(1).is_visible()
    context.close()
