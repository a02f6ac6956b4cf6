"""Run by `python -m sitemaker`."""

from .build import main

main()
