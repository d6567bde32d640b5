"""Notebook 11 in JupyterLab: its cells are run, and the studio in it is used."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from served import ROOT, Painting, server

pytest.importorskip("anywidget")
pytest.importorskip("jupyterlab", reason="needs jupyterlab")

from dmgi_lib.masks import CLASSES, PALETTE

pytestmark = [pytest.mark.browser, pytest.mark.slow]
HAIR = CLASSES.index("hair")


@pytest.fixture
def lab(browser, tmp_path):
    """Notebook 11 in JupyterLab, a copy, since it saves what it shows."""
    (tmp_path / "dmgi_lib").mkdir()  # by which notebooks know the root; the kit is found elsewhere
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks/11_studio.ipynb", tmp_path / "notebooks")
    shutil.copytree(ROOT / "notebooks/hand_drawn", tmp_path / "notebooks/hand_drawn")
    own = {
        name: str(tmp_path / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTERLAB_SETTINGS_DIR")
    }
    options = ["--ip=127.0.0.1", "--port=0", "--no-browser", "--allow-root"]
    options += ["--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}"]
    options += ["--LabApp.expose_app_in_browser=True"]
    command = ("-m", "jupyterlab", *options)
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    with server(*command, address=r"http://127\.0\.0\.1:\d+/", **own) as (_, address):
        yield Painting(context, f"{address}lab/tree/notebooks/11_studio.ipynb?reset")
        context.close()


def run_until_the_studio(page):
    cells = page.locator(".jp-Notebook-cell")
    cells.first.click()
    for _ in range(20):
        page.keyboard.press("Shift+Enter")
        if page.locator(".jp-Notebook-cell.jp-mod-active", has_text="def drawn(").count():
            return
    pytest.fail("no cell shows the studio")


def test_the_notebook_shows_a_studio_that_can_be_used(lab):
    page = lab.page
    page.locator(".jp-Notebook-cell").first.wait_for()
    page.wait_for_function(
        "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"
    )
    run_until_the_studio(page)
    lab.ready()

    face = lab.src()
    before = lab.pixels()
    lab.choose("hair")
    lab.stroke((0.1, 0.1), (0.3, 0.1))
    lab.changed(face)
    assert (lab.pixels()[13, 25, :3] == PALETTE[HAIR]).all()

    face = lab.src()
    lab.press("Undo")
    lab.changed(face)
    assert np.array_equal(lab.pixels(), before)

    mask = np.zeros((128, 128), np.uint8)
    mask[30:100, 40:90] = CLASSES.index("skin")
    face = lab.src()
    lab.load(mask)
    lab.changed(face)
    assert np.array_equal(lab.pixels()[..., :3], PALETTE[mask])

    lab.prompt.fill("an old man")
    lab.prompt.press("Enter")
    page.locator("figcaption", has_text="Drawn: “an old man”").wait_for()
    assert lab.saved("Save picture").size == (128, 128)
    assert not lab.errors
