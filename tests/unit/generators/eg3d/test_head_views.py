"""Views of a head: pictures, depth, normals, turntables, and what is refused."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from solid_heads import Ball, code, solid
from tiny_models import tiny_eg3d, tiny_stylegan2

from dmgi_lib.dataset import to_uint8
from dmgi_lib.generators.eg3d import views
from dmgi_lib.generators.eg3d.cameras import camera_angles, look_at

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def G():
    return tiny_eg3d(pose_range={"yaw": [-45, 45], "pitch": [-15, 15]})


def pixels(image):
    return np.asarray(image).astype(int)


def test_angles_are_those_that_made_the_camera():
    yaw, pitch, roll = [-70.0, 0.0, 33.0], [80.0, -20.0, 5.0], [4.0, -30.0, 0.0]
    angles = camera_angles(look_at(yaw, pitch, roll=roll))
    torch.testing.assert_close(angles, torch.tensor([yaw, pitch, roll]).mT, atol=1e-3, rtol=0)


def test_every_code_from_every_camera_with_its_planes_once(G, monkeypatch):
    ws, cameras = code(G, 2), look_at([-30.0, 0.0, 30.0], 0.0)
    expected = [
        to_uint8(G.synthesis(w, c).image[0]).permute(1, 2, 0)
        for w in ws.split(1)
        for c in cameras.split(1)
    ]
    runs, planes = [], G.planes
    monkeypatch.setattr(G, "planes", lambda *a: (runs.append(1), planes(*a))[1])
    drawn = views.render(G, ws, cameras)
    assert len(runs) == 2
    for image, right in zip(drawn, expected, strict=True):
        assert np.abs(pixels(image) - right.numpy().astype(int)).max() <= 1
    assert np.abs(pixels(drawn[0]) - pixels(drawn[2])).max() > 1


def test_depth_is_bright_where_it_is_near():
    G = solid(Ball)
    (drawn,) = views.render(G, code(G), look_at([0.0], 0.0), "depth")
    depth = pixels(drawn)[..., 0]
    assert drawn.size == (64, 64)
    assert depth[32, 32] > 240 and depth[32, 12] < depth[32, 20] < depth[32, 28]
    assert depth[2, 2] < 70


def test_normals_of_a_ball_in_the_axes_of_the_camera():
    G = solid(Ball)
    for yaw in (0.0, 40.0):
        (drawn,) = views.render(G, code(G), look_at([yaw], 0.0), "normals")
        n = pixels(drawn) / 127.5 - 1
        np.testing.assert_allclose(n[32, 32], [0, 0, 1], atol=0.15)
        assert n[32, 44, 0] > 0.4 and n[32, 20, 0] < -0.4  # right and left
        assert n[20, 32, 1] > 0.4 and n[44, 32, 1] < -0.4  # up and down


def test_alpha_leaves_the_wall_out():
    G = solid(Ball)
    depth = G.synthesis(code(G), look_at([0.0], 0.0)).image_depth
    alpha = torch.zeros(1, 1, 32, 32)
    alpha[..., 10:20, 10:20] = 1
    view = SimpleNamespace(image_depth=depth, image_alpha=alpha)
    assert views.covered(view).sum() == 100
    (picture,) = views._depth_pictures([view])
    assert (picture[0] == 0).all() and picture[15, 15].min() > 0


def test_a_turntable_comes_back_without_a_seam(G, tmp_path):
    path = tmp_path / "turn.webp"
    frames = views.turntable(G, code(G)[0], frames=8, yaw=(-40, 40), path=path, fps=10)
    assert len(frames) == 8
    assert all(np.array_equal(frames[i], frames[8 - i]) for i in range(1, 8))
    first, far = views.render(G, code(G), look_at([-40.0, 40.0], 0.0))
    assert np.array_equal(frames[0], first)
    assert np.abs(pixels(frames[4]) - pixels(far)).max() <= 2
    with Image.open(path) as saved:
        assert saved.n_frames == 8 and saved.size == (16, 16)
    views.turntable(G, code(G), frames=4, path=tmp_path / "turn.GIF")
    with Image.open(tmp_path / "turn.GIF") as saved:
        assert saved.format == "GIF" and saved.n_frames == 4


def test_views_beyond_what_was_seen_are_warned_of(G):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        views.view_cameras(G, [-45.0, 45.0], 15.0, 0.0)
        views.view_cameras(tiny_eg3d(), 120.0, 0.0, 0.0)  # no range is known
    with pytest.warns(UserWarning, match="yaw came as 60 degrees .1 of 2 views.*-45 to 45"):
        views.view_cameras(G, [0.0, 60.0], 0.0, 0.0)
    with pytest.warns(UserWarning, match="pitch came as -30"):
        views.as_cameras((0, -30), G)


def test_the_range_is_kept_with_the_weights(G, tmp_path):
    G.save_pretrained(tmp_path)
    again = type(G).from_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="yaw came as 60"):
        views.as_cameras((60.0, 0.0), again)


def test_cameras_come_as_numbers_or_angles(G):
    c = look_at([10.0], 5.0, roll=2.0)
    for given in (c, c[0], c[0].tolist(), (10.0, 5.0, 2.0)):
        torch.testing.assert_close(views.as_cameras(given, G), c)
    assert views.as_cameras((10, 5), G, count=3).shape == (3, 25)


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        (torch.zeros(24), r"camera came as \(24,\); expected \(V, 25\)"),
        (torch.zeros(2, 3, 25), "camera came as"),
        ("left", r"camera came as str; expected 25 numbers or \(yaw, pitch\)"),
        ([[0.0, 1.0], [2.0]], "camera came as list"),
        (look_at([0.0], 0.0) * torch.tensor([2.0] + [1.0] * 24), "rotation came as"),
        (look_at([0.0, 1.0], 0.0), "2 cameras came for 3 images"),
    ],
)
def test_what_is_no_camera_is_refused(G, camera, message):
    with pytest.raises(ValueError, match=message):
        views.as_cameras(camera, G, count=3)


def test_bad_input_is_refused_before_any_work(G, monkeypatch):
    monkeypatch.setattr(G, "planes", None)
    c, w = look_at([0.0], 0.0), code(G)
    for latents, message in (
        (torch.zeros(1, 12, 8), r"latents came as \(1, 12, 8\).*2D one of .mini."),
        (torch.zeros(8), "latents came as"),
        ("a face", "latents came as a str"),
        (w * torch.nan, "with NaN or infinite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            views.render(G, latents, c)
    with pytest.raises(ValueError, match="output came as 'colour'"):
        views.render(G, w, c, "colour")
    with pytest.raises(ValueError, match="whole number from 1 to 1024"):
        views.render(G, w, c.expand(2000, -1))
    with pytest.raises(ValueError, match="ending in .webp or .gif"):
        views.turntable(G, w, path="turn.mp4")
    with pytest.raises(ValueError, match="expected two angles"):
        views.turntable(G, w, yaw=40)
    with pytest.raises(ValueError, match="expected one of the two"):
        views.view_cameras(G, [1.0, 2.0], 0.0, 0.0, c)


@pytest.mark.parametrize("other", [None, tiny_stylegan2()])
def test_generators_of_pictures_are_told_apart(other):
    with pytest.raises(ValueError, match='from_pretrained."mini-3d"'):
        views.as_3d(other)
