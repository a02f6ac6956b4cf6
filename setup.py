"""Installs sepbook. All metadata lives in settings.ini."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
evaluate, train, hub, onnx, course, dev = (
    cfg[f"{extra}_requirements"].split()
    for extra in ("evaluate", "train", "hub", "onnx", "course", "dev")
)
train += evaluate
songs, ray = cfg["songs_packages"].split(), cfg["ray_packages"].split()
course += train + hub

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    keywords=cfg["keywords"].split(),
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=["sepbook", "sepbook.*"]),
    package_data={"sepbook": ["data/**/*", "weights/*", "py.typed"]},
    install_requires=cfg["requirements"].split(),
    extras_require={
        "evaluate": evaluate,
        "train": train,
        "hub": hub,
        "onnx": onnx,
        "songs": songs,
        "ray": ray,
        "course": course,
        "dev": course + dev,
    },
    entry_points={"console_scripts": cfg["console_scripts"].splitlines()},
    zip_safe=False,
)
