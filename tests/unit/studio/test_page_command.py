"""What `make studio` hands to its server; tests/browser/test_page_server.py opens the page."""

import json
import socket
import sys

import nbformat
import pytest

pytest.importorskip("anywidget")

from tiny_device import OTHER, other_device

from dmgi_lib import DMGIPipeline
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
    page = Page(weights="my weights", device="cpu")
    path = write_notebook(page, tmp_path / "made")
    notebook = nbformat.read(path, as_version=4)
    (cell,) = notebook.cells
    assert cell.source.endswith(f"studio({str(tmp_path.resolve() / 'my weights')!r}, 'cpu')")
    name = notebook.metadata.kernelspec.name
    kernel = (tmp_path / "made" / "kernels" / name / "kernel.json").read_text(encoding="utf-8")
    assert json.loads(kernel)["argv"][0] == sys.executable


def test_weights_that_are_none_get_a_word_on_the_page():
    assert studio("nowhere").value.startswith("The studio can't open: unknown preset 'nowhere'")
    assert "device came as 'abacus'" in studio("mini", "abacus").value


@pytest.mark.parametrize(
    ("weights", "asked"),
    [
        ("mini", {"strengths": {"smile": 1}, "style": {"marble": 1}}),
        ("mini-3d", {"view": [20, 0], "mix": {"number": 2, "face": 0, "rows": "fine"}}),
    ],
)
def test_it_draws_edits_and_saves_where_the_model_is(weights, asked, monkeypatch):
    DMGIPipeline.from_pretrained(weights)  # what it imports makes tensors of its own
    monkeypatch.setattr("dmgi_lib.studio.opened.pick_device", lambda name: OTHER)
    said = []
    with other_device():
        shown = studio(weights)
        assert shown._pipe.device == OTHER
        shown._jobs.put = lambda lane, job: job()  # in this thread, where the device reaches
        shown.panel.send = lambda content, buffers=None: said.append(content)
        shown.panel.exit_step = 0
        shown.draw()
        shown.panel.seed = 1
        for kind in ("edit", "code"):
            shown.panel._handle_custom_msg(asked | {"type": kind, "number": 1}, [])
    answers = [one["type"] for one in said if one["type"] != "asked"]
    assert answers == ["result", "result", "edited", "file"], said


def test_the_template_fetches_nothing():
    files = [path for path in (HERE / "voila").rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any("//" in path.read_text(encoding="utf-8") for path in files)
