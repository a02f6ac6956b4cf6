"""Sounds and pictures of the pages as files, each stored once: pages load what is asked for.

A notebook holds its sounds and pictures itself, so that it plays anywhere. On the site that costs a
third more for being text, and everything again for each slide that shows what a chapter shows. Here
each becomes a file named by its content.
"""

import base64
import hashlib
import io
import os
import re
from pathlib import Path
from urllib.parse import unquote

import soundfile as sf
from PIL import Image

SMALL = 1500  # characters: what is shorter stays in its page
SUFFIX = {"audio/mpeg": "mp3", "image/webp": "webp", "image/png": "png", "image/jpeg": "jpg"}
ELEMENT = re.compile(r"<(?:audio|img|source)\b[^>]*>")
SOURCE = re.compile(r'\bsrc=(["\'])([^"\']+)\1')
DATA = re.compile(r"data:([\w/+.-]+);base64,(.*)", re.S)
# Pictures that Quarto has made of outputs, and those of slides.
FIGURE = re.compile(r"(?:_files/figure-\w+/[^/]+|teach/slides/[^/]+/[^/]+)\.png$")
CARD = re.compile(r'(<meta (?:property|name)="(?:og|twitter):image" content=")([^"]+)(">)')
TWICE = re.compile(r"<(style|script)>(.*?)</\1>", re.S)
LINE = re.compile(r'<a href="#cb[\w-]+" aria-hidden="true" tabindex="-1"></a>')
# Of the libraries that Quarto brings: what only a debugger or a browser of 2011 asks for.
UNUSED = ("*.map", "*.esm.js", "*.eot", "*.ttf")


def light(picture: bytes) -> bytes:
    """A picture as WebP: exact where that costs little (lines, text), else too fine to see."""
    image = Image.open(io.BytesIO(picture))
    image = image.convert("RGBA" if "A" in image.getbands() else "RGB")
    if image.mode == "RGBA" and image.getextrema()[3][0] == 255:
        image = image.convert("RGB")
    found = []
    for how in ({"lossless": True, "quality": 60}, {"quality": 82}):
        file = io.BytesIO()
        image.save(file, "WEBP", method=4, **how)
        found.append(file.getvalue())
    exact, near = found
    best = exact if len(exact) < 1.25 * len(near) else near
    return best if len(best) < len(picture) else picture


class Media:
    """The files in docs/media, and the pages that use them."""

    def __init__(self, docs: Path):
        self.docs = docs
        self.known: dict[bytes, tuple[str, str]] = {}  # by content: path, further attributes

    def keep(self, data: bytes, suffix: str) -> tuple[str, str]:
        """Where `data` is stored from now on, and what its element should know of it."""
        key = hashlib.sha256(data).digest()
        if key not in self.known:
            if suffix == "png":
                data = light(data)
                suffix = "webp" if data[:4] == b"RIFF" else "png"
            path = f"media/{key.hex()[:16]}.{suffix}"
            (self.docs / "media").mkdir(exist_ok=True)
            (self.docs / path).write_bytes(data)
            self.known[key] = path, self.about(data, suffix)
        return self.known[key]

    @staticmethod
    def about(data: bytes, suffix: str) -> str:
        """A sound's length and a picture's size: the page needs no more to stand still."""
        if suffix == "mp3":
            return f' data-seconds="{sf.info(io.BytesIO(data)).duration:.2f}"'
        wide, high = Image.open(io.BytesIO(data)).size
        return f' width="{wide}" height="{high}"'

    def stored(self, source: str, page: Path) -> tuple[str, str] | None:
        """The file for a source of a page: for data inside it, and for a picture of an output."""
        if data := DATA.match(source):
            suffix = SUFFIX.get(data[1])
            if not suffix or len(source) < SMALL:
                return None
            return self.keep(base64.b64decode(data[2]), suffix)
        file = (page.parent / unquote(source)).resolve()
        if not FIGURE.search(file.as_posix()) or not file.exists():
            return None
        return self.keep(file.read_bytes(), "png")

    def element(self, tag: str, page: Path) -> str:
        source = SOURCE.search(tag)
        found = source and self.stored(source[2], page)
        if not found:
            return tag
        path, about = found
        is_sound = tag.startswith("<audio")
        tag = tag.replace(source[0], f'src="{self.relative(path, page)}"')
        known = ("data-seconds",) if is_sound else ("width", "height")
        about = "" if any(f" {k}=" in tag for k in known) else about
        if is_sound:  # the length is known, so nothing has to be loaded before it is played
            tag = re.sub(r'\bpreload="\w*"', 'preload="none"', tag)
        elif "loading=" not in tag:
            about += ' loading="lazy"'
        return re.sub(r"\s*/?>$", f"{about}>", tag)

    def relative(self, path: str, page: Path) -> str:
        return os.path.relpath(self.docs / path, page.parent).replace(os.sep, "/")

    def page(self, html: str, page: Path, site: str) -> str:
        """A page whose sounds and pictures are files; what it holds twice, it holds once."""
        html = ELEMENT.sub(lambda m: self.element(m.group(), page), html)
        html = CARD.sub(lambda m: m[1] + self.card(m[2], page, site) + m[3], html)
        seen: set[str] = set()

        def once(m: re.Match) -> str:
            if m.group() in seen:
                return ""
            seen.add(m.group())
            return m.group()

        return LINE.sub("", TWICE.sub(once, html))

    def card(self, address: str, page: Path, site: str) -> str:
        """The picture that a link to the page shows elsewhere: never one inside the page."""
        path = address.removeprefix(site).lstrip("/")
        if "data:" in address:
            return f"{site}/assets/site/card.png"
        found = FIGURE.search(path) and self.stored(self.relative(path, page), page)
        return f"{site}/{found[0]}" if found else address

    def tidy(self) -> None:
        """Drop what is stored elsewhere now, and what nobody asks for."""
        for file in [p for p in self.docs.rglob("*.png") if FIGURE.search(p.as_posix())]:
            file.unlink()
        for pattern in UNUSED:
            for file in (self.docs / "site_libs").rglob(pattern):
                file.unlink()
        for folder in sorted((p for p in self.docs.rglob("*") if p.is_dir()), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()
