"""What `make studio` hands to its server; tests/browser/test_page_server.py opens the page."""

import json
import socket
import sys

import nbformat
import pytest

pytest.importorskip("anywidget")

from dmgi_lib.studio.__main__ import HERE, LOCAL, Page, free_port, write_notebook
from dmgi_lib.studio.opened import studio


def test_it_listens_to_this_machine_alone_unless_asked():
    assert Page().host == LOCAL == "127.0.0.1"


def test_a_port_in_use_is_refused_and_0_is_a_free_one():
    with socket.create_server((LOCAL, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} .* Choose another --port"):
            free_port(LOCAL, port)
        assert free_port(LOCAL, 0) not in (0, port)


def test_the_kernel_is_this_python_and_weights_get_a_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my weights").mkdir()
    path = write_notebook(Page(weights="my weights"), tmp_path / "made")
    notebook = nbformat.read(path, as_version=4)
    (cell,) = notebook.cells
    assert cell.source.endswith(f"studio({str(tmp_path.resolve() / 'my weights')!r})")
    name = notebook.metadata.kernelspec.name
    kernel = (tmp_path / "made" / "kernels" / name / "kernel.json").read_text(encoding="utf-8")
    assert json.loads(kernel)["argv"][0] == sys.executable


def test_weights_that_are_none_get_a_word_on_the_page():
    assert studio("nowhere").value.startswith("The studio can't open: unknown preset 'nowhere'")


def test_the_template_fetches_nothing():
    files = [path for path in (HERE / "voila").rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any("//" in path.read_text(encoding="utf-8") for path in files)
