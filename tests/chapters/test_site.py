"""The site: every notebook in the sidebar, processed without loss, and nothing calls home."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml
from course import NBS, ROOT, Notebook, notebooks


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load((ROOT / "_quarto.yml").read_text())


def listed(contents) -> list[str]:
    found = []
    for entry in contents:
        found += [entry] if isinstance(entry, str) else listed(entry["contents"])
    return found


def test_sidebar_lists_every_notebook_in_order(config):
    sidebar = listed(config["website"]["sidebar"]["contents"])
    here = [str(p.relative_to(NBS)) for p in notebooks()]
    assert set(sidebar) == set(here)
    numbered = [name for name in sidebar if name[0].isdigit()]
    assert numbered == sorted(numbered)


def test_site_is_rendered_from_stored_outputs(config):
    assert config["execute"]["enabled"] is False
    assert config["project"]["render"] == ["*.ipynb", "!nbs/"]
    assert "commonmark" not in config["format"]


def test_stub_points_to_the_one_configuration():
    stub = yaml.safe_load((NBS / "_quarto.yml").read_text())
    assert stub["metadata-files"] == ["../_quarto.yml", "nbdev.yml"]
    settings = (ROOT / "settings.ini").read_text()
    assert "custom_sidebar = True" in settings and "custom_quarto_yml" not in settings


def test_nothing_is_fetched_by_the_reader(config):
    html = config["format"]["html"]
    assert html["html-math-method"] == "mathml"
    assert "$web-font-path: false;" in (NBS / "sepbook.scss").read_text()
    for path in notebooks():
        for _, out in Notebook(path).outputs():
            html = "".join(out.get("data", {}).get("text/html", ""))
            assert 'src="http' not in html and "<script" not in html, path.name


def test_processing_keeps_outputs(tmp_path):
    """nbdev's own processing runs on every notebook and loses no output and no title."""
    copy = tmp_path / "project"
    ignore = shutil.ignore_patterns(".venv", ".git", "_proc", "_docs", "results", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=ignore)
    call = (
        "from nbdev.quarto import refresh_quarto_yml; refresh_quarto_yml(); "
        "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0)"
    )
    subprocess.run(
        [sys.executable, "-c", call], cwd=copy, check=True, capture_output=True, timeout=300
    )
    for path in notebooks():
        processed = json.loads((copy / "_proc" / path.relative_to(NBS)).read_text())
        kinds = [
            k for c in processed["cells"] for o in c.get("outputs", []) for k in o.get("data", {})
        ]
        wanted = [k for _, o in Notebook(path).outputs() for k in o.get("data", {})]
        assert kinds.count("image/png") == wanted.count("image/png"), path.name
        first = "".join(processed["cells"][0]["source"])
        assert first.startswith("---") and "title:" in first, path.name
