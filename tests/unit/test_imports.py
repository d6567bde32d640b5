"""Who may import whom: data flows one way, and `import dmgi_lib` costs nothing."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import dmgi_lib

ROOT = Path(__file__).parents[2]
ROOMS = (
    "dmgi_lib.generators",
    "dmgi_lib.training",
    "dmgi_lib.evaluation",
    "dmgi_lib.studio",
    "data_prep",
)
GROUND = "dmgi_lib"  # all modules that lie in no room
ALLOWED = {
    GROUND: {GROUND, "dmgi_lib.generators"},
    "dmgi_lib.generators": {GROUND, "dmgi_lib.generators"},
    "dmgi_lib.training": {GROUND, "dmgi_lib.generators", "dmgi_lib.training"},
    "dmgi_lib.evaluation": {GROUND, *ROOMS[:3]},
    "dmgi_lib.studio": {GROUND, "dmgi_lib.generators", "dmgi_lib.studio"},
    "data_prep": {GROUND, *ROOMS} - {"dmgi_lib.studio"},
}


def room(module: str) -> str:
    """The room that a module lies in."""
    return next((r for r in ROOMS if f"{module}.".startswith(f"{r}.")), GROUND)


def imported(path: Path) -> dict[str, int]:
    """Modules of the project that a file imports anywhere, with the line."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            home = ".".join([*start, *([node.module] if node.module else [])])
            names = [f"{home}.{alias.name}" for alias in node.names]
        found |= {n: node.lineno for n in names if n.split(".")[0] in ("dmgi_lib", "data_prep")}
    return found


@pytest.mark.parametrize("home", ALLOWED)
def test_no_room_imports_what_lies_above_it(home):
    folder = ROOT / home.replace(".", "/")
    files = folder.glob("*.py") if home == GROUND else folder.rglob("*.py")
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sorted(files)
        for module, line in imported(path).items()
        if room(module) not in ALLOWED[home]
    ]
    assert not wrong


def test_no_name_of_the_library_comes_from_above():
    homes = {home for home in dmgi_lib._HOMES.values() if home.startswith(GROUND)}
    assert homes and {room(home) for home in homes} <= ALLOWED[GROUND]


def test_no_modules_import_each_other_in_a_circle():
    paths = [p for folder in ("dmgi_lib", "data_prep") for p in (ROOT / folder).rglob("*.py")]
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in paths
        if path.name != "__init__.py"  # they hand names on
    }
    graph = {
        name: {
            module
            for found in imported(path)
            for module in (found, found.rpartition(".")[0])
            if module in modules
        }
        for name, path in modules.items()
    }
    assert len(tuple(TopologicalSorter(graph).static_order())) == len(modules)


def test_nothing_that_windows_lacks_is_imported_at_once():
    absent = {"fcntl", "grp", "pwd", "resource", "termios"}
    for path in [p for folder in ("dmgi_lib", "data_prep") for p in (ROOT / folder).rglob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                assert not absent & {alias.name for alias in node.names}, path


def test_importing_the_library_loads_no_large_one():
    code = (
        "import sys, dmgi_lib; dir(dmgi_lib);"
        "print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
