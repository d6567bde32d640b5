"""The second cell of every notebook: on Colab it fetches the kit, elsewhere it does nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import distributions
from pathlib import Path

import IPython
import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LINES = (ROOT / "tests/fixtures/colab_packages.txt").read_text(encoding="utf-8").splitlines()
COLAB = {
    canonicalize_name(name): version
    for name, _, version in (line.partition("==") for line in LINES if not line.startswith("#"))
}
LACKING = {"diffusers", "torchmetrics", "tyro"}  # of the kit's own dependencies; or too old there
KEPT = {"torch", "torchvision", "numpy", "pandas", "scipy", "transformers", "matplotlib"}
KEPT |= {"ipykernel", "ipython", "ipywidgets", "traitlets", "anywidget"}  # the kernel runs on them

# Runs a cell in IPython, with Colab's modules in the way that the cell looks at them. The modules
# that this needs are seen by it alone, not by the pip that the cell starts.
AS_COLAB = """
import json, sys, types
sys.path += json.loads(sys.argv[2])
from IPython.core.interactiveshell import InteractiveShell
asked = []
colab, output = types.ModuleType("google.colab"), types.ModuleType("google.colab.output")
output.enable_custom_widget_manager = lambda: asked.append("widgets")
colab.output = output
sys.modules |= {"google": types.ModuleType("google"), "google.colab": colab}
shell = InteractiveShell.instance()
cell = open(sys.argv[1], encoding="utf-8").read()
for _ in range(2):  # readers run cells twice
    shell.run_cell(cell).raise_error()
import os
print("\\nENDED", json.dumps([os.getcwd(), asked]))
"""


def cell(path: Path) -> str:
    return nbformat.read(path, as_version=4).cells[1].source


def for_python(path: Path) -> str:
    """The cell without the lines for the shell: Python alone can run the rest."""
    lines = cell(path).splitlines(keepends=True)
    return "".join(line for line in lines if not line.strip().startswith(("!", "%")))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_says_what_to_set_where_no_address_is_known(path, monkeypatch, tmp_path):
    assert cell(path) == cell(NOTEBOOKS[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DMGI_REPOSITORY", raising=False)
    source = for_python(path)
    exec(source, {})  # not on Colab
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    if 'DMGI_REPOSITORY", ""' in source:  # no address stamped
        with pytest.raises(SystemExit, match="address that you clone this kit from .* REPOSITORY"):
            exec(source, {})
    monkeypatch.setenv("DMGI_REPOSITORY", "https://example.org/dmgi-kit.git")
    with pytest.raises(FileNotFoundError, match="dmgi-kit"):  # where the clone would be
        exec(source, {})


def test_colab_has_what_the_kit_asks_for_but_a_few():
    """So that `pip install -e .` there brings those few, and leaves torch and numpy alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [Requirement(line) for line in project["dependencies"]]
    lacking = {
        requirement.name
        for requirement in asked
        if not requirement.specifier.contains(COLAB.get(canonicalize_name(requirement.name), "0"))
    }
    assert lacking == LACKING
    (install,) = [line for line in cell(NOTEBOOKS[0]).splitlines() if "%pip" in line]
    assert install.split() == ["%pip", "install", "--quiet", "-e", "."]  # pins would replace torch


@pytest.mark.slow
def test_runs_as_on_colab(tmp_path, monkeypatch):
    """A fresh environment with Colab's list of packages; the kit from a repository of files."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone")
    python = pretend_colab(tmp_path / "colab")
    repository = light_repository(tmp_path / "repository")
    (tmp_path / "cell.py").write_text(cell(NOTEBOOKS[0]), encoding="utf-8")
    (tmp_path / "content").mkdir()
    for name in ("PYTHONPATH", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DMGI_REPOSITORY", repository.as_uri())
    before = installed(tmp_path / "colab")
    seen_here = json.dumps([str(Path(IPython.__file__).parents[1])])
    ran = subprocess.run(
        [str(python), "-c", AS_COLAB, str(tmp_path / "cell.py"), seen_here],
        cwd=tmp_path / "content",
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "NewConnectionError" in ran.stdout + ran.stderr:
        pytest.skip("no package index to be reached")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    ended, asked = json.loads(ran.stdout.rpartition("ENDED")[2])
    assert Path(ended) == (tmp_path / "content/dmgi-kit").resolve()  # once, though run twice
    assert asked == ["widgets"]
    brought = {name for name, _ in installed(tmp_path / "colab") - before}
    assert brought >= LACKING | {"dmgi-kit"}
    assert not brought & KEPT, brought


def pretend_colab(folder: Path) -> Path:
    """An environment that claims Colab's packages without having them; returns its Python."""
    venv.create(folder, with_pip=True)
    for name, version in COLAB.items():
        if name in ("pip", "setuptools"):
            continue
        info = site_packages(folder) / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(text, encoding="utf-8")
        listed = "".join(f"{info.name}/{file},,\n" for file in ("METADATA", "RECORD"))
        (info / "RECORD").write_text(listed, encoding="utf-8")  # what pip removes with it
    return folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def site_packages(folder: Path) -> Path:
    (found,) = [*folder.glob("lib/python*/site-packages"), *folder.glob("Lib/site-packages")]
    return found


def installed(folder: Path) -> set[tuple[str, str]]:
    found = distributions(path=[str(site_packages(folder))])
    return {(canonicalize_name(d.metadata["Name"]), d.version) for d in found}


def light_repository(folder: Path) -> Path:
    """A repository with the kit's code and without its weights and people."""
    folder.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    identity = ["-c", "user.name=kit", "-c", "user.email=kit@example.org"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "-qm", "The kit"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder
