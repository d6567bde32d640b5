"""What a notebook is given of a mesh; the page itself is tried in tests/browser."""

import base64
import html
import io
import re

import numpy as np
import pytest
from PIL import Image

from dmgi_lib.generators.eg3d.viewer import MeshView

trimesh = pytest.importorskip("trimesh")


def half_red_ball():
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=0.3)
    colors = np.full((len(mesh.vertices), 4), (0, 0, 255, 255), np.uint8)
    colors[mesh.vertices[:, 0] > 0] = (255, 0, 0, 255)
    mesh.visual.vertex_colors = colors
    return mesh


def test_a_frame_holds_the_mesh_and_loads_nothing():
    mesh = half_red_ball()
    bundle = MeshView(mesh, height=300)._repr_mimebundle_()
    frame = bundle["text/html"]
    assert 'height="300"' in frame and frame.startswith("<iframe")
    page = html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1])
    assert not re.search(r"https?:|(src|href)=\"(?!data:)", page)
    held = {
        name: base64.b64decode(data)
        for name, data in re.findall(r'type="text/plain" id="(\w+)">([^<]*)<', page)
    }
    position = np.frombuffer(held["position"], "<u2").reshape(-1, 4)[:, :3]
    points = (position / 65535 - 0.5) * 0.6 * 1.05
    np.testing.assert_allclose(points, mesh.vertices, atol=1e-4)
    faces = np.frombuffer(held["faces"], "<u4").reshape(-1, 3)
    np.testing.assert_array_equal(faces, mesh.faces)
    color = np.frombuffer(held["color"], np.uint8).reshape(-1, 4)[:, :3]
    np.testing.assert_array_equal(color, mesh.visual.vertex_colors[:, :3])


def test_the_still_picture_shows_it_from_the_front():
    view = MeshView(half_red_ball())
    png = base64.b64decode(view._repr_mimebundle_()["image/png"])
    picture = np.asarray(Image.open(io.BytesIO(png))).astype(int)
    assert picture.shape == (256, 256, 3)
    assert picture[128, 170, 0] > 150 > 50 > picture[128, 170, 2]  # the person's left
    assert picture[128, 90, 2] > 150 > 50 > picture[128, 90, 0]
    assert (picture[5, 5] > 200).all()
    inside = picture[100:156, 100:156].min(axis=-1)
    assert (inside < 100).mean() > 0.98  # no holes


def test_what_is_no_mesh_is_refused():
    with pytest.raises(ValueError, match="mesh came as str"):
        MeshView("head.glb")
    with pytest.raises(ValueError, match="0 faces"):
        MeshView(trimesh.Trimesh([[0, 0, 0]], np.zeros((0, 3), int)))
    with pytest.raises(ValueError, match="height came as 5"):
        MeshView(half_red_ball(), height=5)
