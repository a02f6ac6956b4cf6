"""Widgets that need Python, as small ones that need only a browser (nbs/assets/site/widgets.js)."""

import re

from .book import Page

# By chapter: the line of a cell that makes the widget, and what stands in its place.
SMALL = {
    "1": [
        (
            r"^mixing_desk\(src",
            '<div class="sepbook-desk" data-clips="vocals|drums|bass|other" data-mix="mixture">',
        )
    ],
    "2": [
        (
            r"^interact\(play_band",
            '<div class="sepbook-scissors" data-clip="mix" data-rate="11025" data-frame="1024" '
            'data-box="0,99,300,3400" data-controls="box">',
        ),
        (
            r"^interact\(show_and_draw",
            '<div class="sepbook-scissors" data-clip="mix" data-rate="16000" data-top="3000" '
            'data-frame="1024" data-controls="frame">',
        ),
    ],
    "3": [
        (
            r"^mask_editor\(",
            '<div class="sepbook-scissors" data-clip="mixture" data-rate="8000" data-frame="512" '
            'data-box="0.5,1.5,200,1500" data-controls="box time">',
        )
    ],
    "10": [
        (
            r"^def spectral_editor\(",
            '<div class="sepbook-scissors" data-clip="mixture" data-rate="16000" data-frame="512" '
            'data-box="0,0.47,0,8000" data-controls="box time">',
        )
    ],
}
NOTE = (
    "This small version runs in your browser, on the clips of this page. "
    "In JupyterLab the cell above makes the whole one."
)
ASKS = "*Run this cell in JupyterLab"


def small(page: Page, cell: dict) -> str:
    """What stands below a cell whose widget has a small version; the cell loses its excuse."""
    if page.is_solution:
        return ""
    for line, box in SMALL.get(page.number, []):
        if re.search(line, cell["source"], re.M):
            cell["outputs"] = [
                o
                for o in cell.get("outputs", [])
                if ASKS not in "".join(o.get("data", {}).get("text/markdown", ""))
            ]
            return f'```{{=html}}\n{box}</div>\n<p class="small-widget">{NOTE}</p>\n```'
    return ""
