"""The documentation: its links lead somewhere, its notebook runs, it is short."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", "build", "results"} & set(path.relative_to(ROOT).parts)
)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [t.partition("#")[0] for t in targets if "://" not in t]
    missing = [t for t in local if t and not (page.parent / t).exists()]
    assert not missing, f"{name_of(page)} links to {missing}"


def test_the_readme_is_a_short_read():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_modules_that_pages_name_exist():
    """Whoever renames a module renames it here too."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"\b(?:fedenhance|fed)(?:\.[a-z_]+)+\b", text):
            if name.endswith((".yaml", ".py", ".pt", ".csv", ".sh")):
                continue
            folder, *parts = name.split(".")
            path = ROOT / folder
            while parts and (path / parts[0]).is_dir():
                path /= parts.pop(0)
            found = not parts or (path / f"{parts[0]}.py").exists()
            found = found or hasattr(import_module(folder), parts[0])
            assert found, f"{name_of(page)} names {name}"


def test_the_site_builds_without_a_warning(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "federate.html").exists()


def test_the_tutorial_runs(monkeypatch):
    """Every cell; the last one asserts that the federations learnt."""
    monkeypatch.chdir(ROOT / "docs")
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{path}")
    notebook = nbformat.read("tutorial.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
