"""Meshes of fields whose surface is known."""

import sys
import time

import numpy as np
import pytest
import torch
from solid_heads import RADIUS, Ball, Head, code, solid
from tiny_models import tiny_eg3d

from dmgi_lib.generators.eg3d.cameras import look_at
from dmgi_lib.generators.eg3d.mesh import head_mesh

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("skimage")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def ball():
    G = solid(Ball)
    return head_mesh(G, code(G), resolution=48)


def test_a_ball_is_where_it_is(ball):
    distances = np.linalg.norm(ball.vertices, axis=1)
    G = solid(Ball)
    view = G.synthesis(code(G), look_at([0.0], 0.0))
    shown = 2.7 - view.image_depth[0, 0, 15:17, 15:17].mean().item()
    assert shown - 0.005 < distances.mean() < RADIUS  # rays stop a little below a soft surface
    assert abs(distances.mean() - shown) < 0.02
    assert distances.std() < 0.003
    assert np.abs(ball.vertices.mean(axis=0)).max() < 0.003
    assert ball.volume > 0  # faces look outwards
    np.testing.assert_allclose(ball.volume, 4 / 3 * np.pi * distances.mean() ** 3, rtol=0.02)


def test_colours_are_those_of_the_place(ball):
    colors = np.asarray(ball.visual.vertex_colors)
    assert colors.shape == (len(ball.vertices), 4) and (colors[:, 3] == 255).all()
    expected = (ball.vertices + 0.5) * 255
    assert np.abs(colors[:, :3] - expected).max() < 1.0


def test_a_head_is_one_closed_thing_in_time():
    """At 128 voxels a side, one thread."""
    G = solid(Head)
    begin = time.process_time()
    mesh = head_mesh(G, code(G), resolution=128)
    assert time.process_time() - begin < 8
    assert len(mesh.split(only_watertight=False)) == 1
    edges = np.sort(mesh.edges, axis=1)
    _, uses = np.unique(edges, axis=0, return_counts=True)
    assert (uses == 1).mean() < 0.05  # open ones
    assert mesh.is_watertight  # none even where the neck is cut
    low, high = mesh.bounds
    assert low[1] == pytest.approx(-0.5, abs=0.01) and high[1] == pytest.approx(0.26, abs=0.02)
    assert high[0] < 0.25  # without what floats
    assert high[2] == pytest.approx(0.28, abs=0.02)  # the nose, to the front
    inside = np.linalg.norm(mesh.vertices - [0, 0.05, 0], axis=1) < 0.13
    assert not inside.any()  # the hollow


@pytest.mark.parametrize("ending", [".glb", ".obj", ".ply"])
def test_files_keep_form_and_colours(ball, tmp_path, ending):
    path = tmp_path / f"head{ending}"
    ball.export(path)
    again = trimesh.load(path, force="mesh", process=False)
    assert len(again.faces) == len(ball.faces)
    np.testing.assert_allclose(again.bounds, ball.bounds, atol=1e-5)
    given, found = (np.asarray(m.visual.vertex_colors)[:, :3].mean(0) for m in (ball, again))
    np.testing.assert_allclose(found, given, atol=1.5)


def test_a_path_is_written(tmp_path):
    G = solid(Ball)
    mesh = head_mesh(G, code(G)[0], resolution=16, path=tmp_path / "a.ply")
    assert len(trimesh.load(tmp_path / "a.ply").faces) == len(mesh.faces)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 2000}, "resolution came as 2000; expected"),
        ({"resolution": 8}, "expected a whole number from 16 to 512"),
        ({"resolution": 64.5}, "expected a whole number"),
        ({"path": "head.stl2"}, "expected one ending in .glb or .obj or .ply"),
    ],
)
def test_bad_input_is_refused_before_any_work(options, message, monkeypatch):
    G = solid(Ball)
    monkeypatch.setattr(G, "planes", None)
    with pytest.raises(ValueError, match=message):
        head_mesh(G, code(G), **options)
    with pytest.raises(ValueError, match="2 codes came; expected one"):
        head_mesh(G, code(G, 2))


def test_a_code_without_a_head_is_told_of():
    class Nothing(Ball):
        def distance(self, p):
            return torch.ones_like(p[..., 0])

    G = solid(Nothing)
    with pytest.raises(ValueError, match="shows nothing solid"):
        head_mesh(G, code(G), resolution=16)


def test_missing_libraries_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    G = tiny_eg3d()
    with pytest.raises(ModuleNotFoundError, match=r"dmgi-kit\[mesh\]"):
        head_mesh(G, torch.zeros(1, G.num_ws, G.w_dim))
