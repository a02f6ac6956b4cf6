"""A flip book is whole and small HTML: labelled, escaped, and shown without scripts."""

import base64
import io
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
import soundfile as sf
import torch

from sepbook.engine.show import flip_book, picture_bytes, small_spectrogram

WAVES = [0.1 * torch.sin(2 * torch.pi * hz * torch.arange(8000) / 8000)[None] for hz in (200, 900)]
FRAMES = [small_spectrogram(wav, 8000, 1.0) for wav in WAVES]


class Parts(HTMLParser):
    """The elements of a page, in order, each with its attributes; and its visible text."""

    def __init__(self, text: str):
        super().__init__()
        self.found, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] not in ("style", "script"):
            self.texts.append(data.strip())

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def book(**changes):
    given = dict(frames=FRAMES, label="Tone", values=["200 Hz", "900 Hz"], alt="A tone of {}")
    return flip_book(**(given | changes)).data


def figure():
    fig, ax = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
    ax.plot(np.arange(9))
    return fig


def test_structure():
    parts = Parts(book(start=1))
    assert not parts.open, "an element that is not closed"
    frames = [a for a in parts.all("div") if a.get("class") == "frame"]
    assert ["hidden" in a for a in frames] == [True, False]
    assert [a["data-value"] for a in frames] == ["200 Hz", "900 Hz"]
    assert [a["alt"] for a in parts.all("img")] == ["A tone of 200 Hz", "A tone of 900 Hz"]
    assert all(a["src"].startswith("data:image/webp;base64,") for a in parts.all("img"))
    assert not parts.all("audio")


def test_slider_is_named_and_read_out():
    text = book(start=1)
    parts = Parts(text)
    (slider,), (said,) = parts.all("input"), parts.all("output")
    assert slider["type"] == "range" and (slider["min"], slider["max"]) == ("0", "1")
    assert slider["value"] == "1" and slider["aria-valuetext"] == "900 Hz"
    assert said["aria-live"] == "polite" and re.search(r"<output[^>]*>900 Hz</output>", text)
    assert re.search(r"<label>Tone <input [^>]*></label>", text)


def test_without_scripts_no_slider_that_does_nothing():
    (slider,) = Parts(book()).all("input")
    assert "hidden" in slider


def test_no_text_becomes_html():
    bad = '"><script>x</script>'
    text = book(label=bad, values=[bad, "b"], alt=bad + "{}", sounds=WAVES, sample_rate=8000)
    parts = Parts(text)
    assert len(parts.all("script")) == 1 and not parts.open
    assert parts.all("img")[0]["alt"] == bad + bad
    assert parts.all("audio")[0]["aria-label"] == bad
    assert parts.all("input")[0]["aria-valuetext"] == bad and bad in parts.texts


def test_braces_in_values_stay():
    assert Parts(book(values=["{0}", "{}"])).all("img")[0]["alt"] == "A tone of {0}"


def test_asks_nobody():
    text = re.sub(r"base64,[^\"]*", "", book(sounds=WAVES, sample_rate=8000))
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch|import\(", text)


def test_two_books_share_no_name():
    """A page may hold several, so nothing in one has an id or a name."""
    assert not re.search(r"<[^>]*\s(id|name|for)=", book(sounds=WAVES, sample_rate=8000))


def test_sounds_are_equally_loud():
    text = book(sounds=[WAVES[0], WAVES[1] / 50], sample_rate=8000)
    clips = [base64.b64decode(a["src"].split(",")[1]) for a in Parts(text).all("audio")]
    levels = [np.std(sf.read(io.BytesIO(clip))[0]) for clip in clips]
    assert len(levels) == 2 and abs(20 * np.log10(levels[0] / levels[1])) < 0.5


def test_small():
    """Eight plain figures are less than 100 kB; what is around them, less than 4 kB."""
    before = plt.get_fignums()
    text = book(frames=[figure() for _ in range(8)], values=range(8))
    assert plt.get_fignums() == before, "a figure stays open and is drawn a second time"
    files = [a["src"] for a in Parts(text).all("img")]
    assert sum(map(len, files)) < 100_000 and len(text) - sum(map(len, files)) < 4000


def test_pictures():
    assert picture_bytes(FRAMES[0]) is FRAMES[0]
    file = io.BytesIO()
    plt.imsave(file, np.zeros((4, 4)), format="png")
    assert "data:image/png" in book(frames=[file.getvalue(), FRAMES[1]])
    for bad in (b"<svg>", "text", None, 3):
        with pytest.raises(ValueError, match=r"a picture is .*; give a matplotlib figure"):
            picture_bytes(bad)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"values": ["one"]}, "2 frames, 1 values and 1 texts; give two or more"),
        ({"frames": FRAMES[:1], "values": ["one"]}, "1 frames, 1 values"),
        ({"frames": [], "values": []}, "0 frames"),
        ({"alt": ["one"]}, "1 texts"),
        ({"sounds": WAVES[:1], "sample_rate": 8000}, "1 sounds"),
        ({"sounds": WAVES}, "sounds without sample_rate"),
        ({"label": " "}, "empty text"),
        ({"alt": ""}, "empty text"),
        ({"values": ["", "b"]}, "empty text"),
        ({"start": 2}, "start is 2, but must be one of the frames, 0 to 1"),
        ({"start": -1}, "start is -1"),
        ({"sounds": [torch.zeros(8)] * 2, "sample_rate": 8000}, "a sound has shape"),
    ],
)
def test_what_is_refused(changes, said):
    with pytest.raises(ValueError, match=said) as error:
        book(**changes)
    assert "\n" not in str(error.value)
