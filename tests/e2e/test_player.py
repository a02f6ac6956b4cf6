"""The player in a real browser: it plays, switches without restarting, obeys the keyboard."""

import re

import pytest
import torch

from sepbook.engine.show import listen

LOOK = {"light": "color:#212529;background:#fff", "dark": "color:#dee2e6;background:#222"}


@pytest.fixture
def page(browser, tmp_path):
    """Three players: of three clips with pictures, of two as older outputs have them, of one."""
    time = torch.arange(32000) / 8000
    clips = {f"{hz} Hz": 0.1 * torch.sin(2 * torch.pi * hz * time)[None] for hz in (300, 440, 700)}
    drawn = listen(clips, 8000, "Three tones", spectrogram=True).data
    figures = re.findall("<figure.*?</figure>", listen(clips, 8000).data)[:2]
    older = f"<div><strong>Older</strong><br>{''.join(figures)}</div>"
    one = listen(clips["440 Hz"], 8000, "A tone").data
    text = f"<!doctype html><meta charset=utf-8><title>t</title><body>{drawn}{older}{one}"
    (tmp_path / "page.html").write_text(text)
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda r: page.faults.append(r.url) if r.url.startswith("http") else None)
    page.goto((tmp_path / "page.html").as_uri())
    yield page
    assert not page.faults
    page.close()


def place(player) -> float:
    """Where a player is, in seconds, as it says itself."""
    return float(player.locator(".bar span").inner_text().split()[0])


def test_plays_and_switches_without_restarting(page):
    player = page.get_by_role("group", name="Three tones")
    player.get_by_role("button", name="Play").click()
    page.wait_for_timeout(900)
    assert place(player) > 0.4 and player.get_by_role("button", name="Pause").is_visible()
    before = place(player)
    player.get_by_text("700 Hz").click()
    page.wait_for_timeout(200)
    assert before <= place(player) < before + 1.5
    shown = [p.is_visible() for p in player.get_by_role("img", include_hidden=True).all()]
    assert shown == [False, False, True]
    other = page.get_by_role("group", name="A tone")
    other.get_by_role("button", name="Play").click()  # one at a time
    page.wait_for_timeout(400)
    assert player.get_by_role("button", name="Play").is_visible()
    other.get_by_role("button", name="Pause").click()
    at = place(other)
    page.wait_for_timeout(300)
    assert place(other) == at > 0
    other.get_by_role("button", name="Play").click()  # goes on where it was
    page.wait_for_timeout(200)
    assert at <= place(other) < at + 1.5


def test_by_keyboard_alone(page):
    player = page.get_by_role("group", name="Three tones")
    page.keyboard.press("Tab")
    takes = "document.body.addEventListener('keydown', event => event.preventDefault())"
    page.evaluate(takes)  # as JupyterLab does with arrow keys
    page.keyboard.press("ArrowRight")
    assert player.get_by_role("radio", name="440 Hz").is_checked()
    page.keyboard.press("Space")
    page.wait_for_timeout(600)
    assert player.get_by_role("button", name="Pause").is_visible() and place(player) > 0
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "range"  # the slider over the picture
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert place(player) == pytest.approx(3.9, abs=0.06)
    assert "of 4.0 s" in page.evaluate("document.activeElement.ariaValueText")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    for name in ("Play", "Loop"):
        page.keyboard.press("Tab")
        assert name in page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    assert player.get_by_role("button", name="Loop", pressed=True).is_visible()


def test_older_outputs_become_players(page):
    player = page.get_by_role("group", name="Older")
    assert player.get_by_role("radio").count() == 2
    page.wait_for_timeout(300)
    assert "of 4.0 s" in player.locator(".bar span").inner_text()
    assert page.locator("audio:visible").count() == 0


@pytest.mark.parametrize("theme", LOOK)
def test_fits_a_phone_and_either_theme(page, theme):
    """Nothing scrolls sideways at 390 px, and text has the contrast of the page's own."""
    page.evaluate(f"document.body.style = '{LOOK[theme]}'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for text in page.locator(".sepbook-player :is(button, label, span)").all():
        seen = text.evaluate(
            "e => [getComputedStyle(e).color, getComputedStyle(document.body).color]"
        )
        assert seen[0] == seen[1]


def test_without_scripts_the_plain_elements_play(browser, tmp_path):
    (tmp_path / "page.html").write_text(listen(torch.rand(1, 8000) - 0.5, 8000, "noise").data)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("audio[controls]").is_visible() and page.get_by_text("noise").is_visible()
    context.close()
