"""`python -m sepbook` is the command `sepbook`."""

from .cli import main

if __name__ == "__main__":
    main()
