"""The files that others join by: what they declare is true, and they agree with each other."""

from __future__ import annotations

import ast
import re
import runpy
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import dmgi_lib
from dmgi_lib.masks import load_mask

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def plain(name: str) -> str:
    """A distribution's name as indexes compare it, without versions and extras."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", name.strip())[0]).lower()


CORE = {plain(line) for line in PROJECT["dependencies"]}
EXTRAS = {
    extra: {plain(line) for line in lines} - {PROJECT["name"]}
    for extra, lines in PROJECT["optional-dependencies"].items()
}
DECLARED = CORE.union(*EXTRAS.values())
INSTALLED = packages_distributions()  # module → distributions; slow


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


OURS = {"dmgi_lib", "data_prep"} | {path.stem for path in sources("tests")}


def imports(nodes: list[ast.stmt]) -> Iterator[str]:
    """Top names of the modules that these statements import, those of this project left out."""
    for statement in nodes:
        for node in ast.walk(statement):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for top in (name.partition(".")[0] for name in names):
                if top not in OURS | sys.stdlib_module_names:
                    yield top


def distributions(module: str) -> set[str]:
    """What installs a module; by its own name if it is not installed here."""
    return {plain(name) for name in INSTALLED.get(module, [module])}


def test_every_import_is_declared():
    undeclared = {
        (module, str(path.relative_to(ROOT)))
        for path in sources("dmgi_lib", "data_prep", "tests", "docs")
        for module in imports(ast.parse(path.read_text(encoding="utf-8")).body)
        if not distributions(module) & DECLARED
    }
    assert not undeclared


def test_the_library_imports_with_core_dependencies_alone():
    """Extras are imported where they are used, not at the head of a module.

    Only the studio, a room that nobody imports, needs its extra from the start.
    """
    heads = {}
    for path in sources("dmgi_lib"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        imported = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        heads[path.relative_to(ROOT).as_posix()] = set(imports(imported))
    assert any("torch" in modules for modules in heads.values())
    assert not {
        (path, module)
        for path, modules in heads.items()
        for module in modules
        if not distributions(module) & (CORE | studio_needs(path))
    }


def studio_needs(path: str) -> set[str]:
    return EXTRAS["studio"] if path.startswith("dmgi_lib/studio/") else set()


def test_constraints_cover_what_is_declared():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned)
    assert {plain(line) for line in pinned} >= DECLARED - EXTRAS["paper"] - EXTRAS["outside"]


@pytest.mark.parametrize("package", ["dmgi_lib", "data_prep"])
def test_the_wheel_holds_the_data(package):
    """Weights and people are found where the package is, so an installed wheel needs them too."""
    folder = ROOT / package
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"][package]
    packed = {path for pattern in patterns for path in folder.glob(pattern)}
    left_out = {".py", ".pyc"}
    held = {p for p in folder.rglob("*") if p.is_file() and p.suffix not in left_out}
    held -= {*(folder / "next_world").rglob("*")}  # only trainings begin with it, in a clone
    assert held - packed <= {folder / "faces128" / "contact_sheet.png"}  # README's picture


def recipe(target: str) -> list[str]:
    """Commands of a target of the Makefile, as they read in an activated environment."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(rf"^{target}:[^\n=]*\n((?:\t[^\n]*\n)+)", text, re.MULTILINE)
    assert found, target
    return [line.strip().replace("$(BIN)/", "") for line in found[1].splitlines()]


def test_the_workflow_runs_what_make_test_runs():
    text = (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["jobs"]["test"]
    ran = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^test: lint ", makefile, re.MULTILINE)
    assert ran[1:] == recipe("lint") + recipe("test")
    (extras,) = re.findall(r"-e \"\.\[(.*dev.*)\]\"", makefile)
    assert ran[0] == f'python -m pip install -c constraints.txt -e ".[{extras}]"'
    systems = {name.partition("-")[0] for name in job["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu", "macos", "windows"}
    assert f">={min(job['strategy']['matrix']['python'])}" == PROJECT["requires-python"]


def test_environment_and_makefile_install_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (extras,) = re.findall(r"-e \"\.\[(.*dev.*)\]\"", makefile)
    assert pip == ["-c constraints.txt", f"-e .[{extras}]"]


def test_hooks_run_what_lint_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entries = [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]
    for command in recipe("lint"):
        called = re.match(r"(\w+( \w+)?)", command)
        assert called and any(entry.startswith(called[1]) for entry in entries), command


def test_citation_names_the_kit_and_the_paper():
    """The keys that CFF 1.2.0 requires of a file, and of a reference."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"] and citation["authors"] and citation["title"] == "DMGI kit"
    paper = citation["preferred-citation"]
    assert paper["type"] == "conference-paper"
    assert paper["title"].startswith("Diffusion-driven GAN Inversion")
    assert all({"family-names", "given-names"} <= set(author) for author in paper["authors"])
    assert "2405.04356" in paper["url"]


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    versions = {dmgi_lib.__version__, PROJECT["version"], citation["version"]}
    assert len(versions) == 1
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\]", changes, re.MULTILINE)
    assert headings[0] == "Unreleased" and headings[1] in versions


def test_api_pages_hold_the_docstrings_and_need_no_network(tmp_path):
    pytest.importorskip("pdoc")
    build = runpy.run_path(str(ROOT / "docs/build_api.py"))["build"]
    before = list(dmgi_lib.__all__)
    build(tmp_path, ["dmgi_lib.masks"])
    assert dmgi_lib.__all__ == before
    page = (tmp_path / "dmgi_lib/masks.html").read_text(encoding="utf-8")
    assert 'id="load_mask"' in page
    first = (load_mask.__doc__ or "").splitlines()[0]
    assert re.sub(r"\W+", "", first) in re.sub(r"<[^>]*>|\W+", "", page)
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", page)
