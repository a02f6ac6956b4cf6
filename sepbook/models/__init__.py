"""Every network of the course by its name, each imported when it is first used."""

from ..engine.face import MODELS, find_network


def __dir__() -> list[str]:
    return sorted({*globals(), *MODELS})


def __getattr__(name: str) -> type:
    if name in MODELS:
        return find_network(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
