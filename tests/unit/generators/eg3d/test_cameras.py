"""Cameras of 25 numbers: poses, rays and what is refused."""

import math

import pytest
import torch

from data_prep.faces128.render import camera_label
from dmgi_lib.generators.eg3d.cameras import (
    FOCAL,
    camera_rays,
    compose_camera,
    look_at,
    split_camera,
    validate_camera,
)

torch.set_num_threads(1)


@pytest.mark.parametrize("yaw", [-60.0, 0.0, 25.0])
@pytest.mark.parametrize(("pitch", "roll"), [(0.0, 0.0), (-20.0, 7.0), (35.0, -90.0)])
def test_agrees_with_the_face_world(yaw, pitch, roll):
    expected = torch.from_numpy(camera_label(yaw, pitch, roll)).float()
    torch.testing.assert_close(look_at(yaw, pitch, roll=roll), expected, atol=1e-6, rtol=0)


def test_frontal_camera_by_hand():
    cam2world, intrinsics = split_camera(look_at(0.0, 0.0))
    expected = [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2.7], [0, 0, 0, 1]]
    torch.testing.assert_close(cam2world, torch.tensor(expected))
    torch.testing.assert_close(
        intrinsics, torch.tensor([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1]])
    )


def test_signs_and_distance():
    position = split_camera(look_at([40.0, -40.0, 0.0], [0.0, 0.0, 30.0], radius=2.0))[0][:, :3, 3]
    assert position[0, 0] > 1 > -1 > position[1, 0]
    assert position[2, 1] == pytest.approx(1.0)
    torch.testing.assert_close(position.norm(dim=1), torch.full((3,), 2.0))


def test_lists_are_broadcast():
    assert look_at(1.0, 2.0).shape == (25,)
    assert look_at([1.0, 2.0, 3.0], 0.0).shape == (3, 25)
    grid = look_at(torch.linspace(-30, 30, 3)[:, None], torch.tensor([-10.0, 10.0]))
    assert grid.shape == (3, 2, 25)
    torch.testing.assert_close(grid[2, 0], look_at(30.0, -10.0))
    radii = look_at(0.0, 0.0, radius=[1.0, 2.0], focal=[3.0, 4.0])
    torch.testing.assert_close(radii[1], look_at(0.0, 0.0, radius=2.0, focal=4.0))


def test_the_point_looked_at_is_in_the_centre():
    target = torch.tensor([0.1, -0.2, 0.3])
    c = look_at([50.0, -20.0], [10.0, -40.0], roll=[0.0, 33.0], lookat=target)
    validate_camera(c)
    origins, directions = camera_rays(c, 5)
    assert split_camera(c)[0][:, :3, 3].norm(dim=1) == pytest.approx([2.7, 2.7])
    towards = torch.nn.functional.normalize(target - origins[:, 12], dim=1)
    torch.testing.assert_close(directions[:, 12], towards)


def test_split_and_compose_are_inverse():
    c = look_at([10.0, 20.0], [0.0, 5.0])
    assert torch.equal(compose_camera(*split_camera(c)), c)


def test_rays_go_through_pixel_centres():
    cam2world, K = split_camera(look_at([20.0, -35.0], 12.0, roll=5.0).double())
    K = K.clone()
    K[:, 0] = torch.tensor([3.0, 0.2, 0.45], dtype=K.dtype)  # skewed, off-centre
    K[:, 1, 2] = 0.6
    origins, directions = camera_rays(compose_camera(cam2world, K), 4)
    assert origins.shape == directions.shape == (2, 16, 3)
    torch.testing.assert_close(directions.norm(dim=2), torch.ones(2, 16, dtype=K.dtype))
    points = origins + 1.7 * directions
    local = (points - cam2world[:, None, :3, 3]) @ cam2world[:, :3, :3]
    projected = local @ K.mT
    uv = (projected[..., :2] / projected[..., 2:]).unflatten(1, (4, 4))
    centres = (torch.arange(4, dtype=K.dtype) + 0.5) / 4
    torch.testing.assert_close(uv[..., 0], centres.expand(2, 4, 4))
    torch.testing.assert_close(uv[..., 1], centres[:, None].expand(2, 4, 4))


def test_roll_turns_the_picture():
    plain = camera_rays(look_at(15.0, 5.0)[None], 8)[1].unflatten(1, (8, 8))
    quarter = camera_rays(look_at(15.0, 5.0, roll=90.0)[None], 8)[1].unflatten(1, (8, 8))
    torch.testing.assert_close(quarter, plain.rot90(1, (1, 2)), atol=1e-6, rtol=0)


def test_poses_that_make_no_camera_are_named():
    for arguments, message in (
        ({"yaw": math.nan, "pitch": 0.0}, r"yaw came as nan; expected finite"),
        ({"yaw": 0.0, "pitch": 90.0}, "straight above"),
        ({"yaw": 0.0, "pitch": 0.0, "lookat": (0.0, 0.0, 2.7)}, "not at, straight above"),
        ({"yaw": 0.0, "pitch": 0.0, "radius": 0.0}, r"radius came as 0\.0"),
        ({"yaw": 0.0, "pitch": 0.0, "focal": [1.0, -1.0]}, r"focal came as \[1\.0, -1\.0\]"),
        ({"yaw": [0.0, 1.0], "pitch": [0.0, 1.0, 2.0]}, "equal lengths"),
        ({"yaw": 0.0, "pitch": 0.0, "lookat": (0.0, 1.0)}, r"lookat came as \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            look_at(**arguments)


def test_numbers_that_are_no_camera_are_named():
    good = look_at([20.0, -5.0], 10.0)
    validate_camera(good)
    cam2world, intrinsics = split_camera(good)
    opengl = cam2world * torch.tensor([1.0, -1.0, 1.0, 1.0])  # one axis flipped: left-handed
    scaled = cam2world.clone()
    scaled[1, :3, :3] *= 1.1
    pixels = intrinsics * torch.tensor([[128.0], [128.0], [1.0]])
    transposed = intrinsics.mT
    for c, message in (
        (good[:, :24], r"camera c came as \(2, 24\); expected \(\.\.\., 25\)"),
        (good * math.inf, "NaN or infinite"),
        (compose_camera(cam2world.mT, intrinsics), "transposed"),
        (compose_camera(opengl, intrinsics), "right-handed"),
        (compose_camera(scaled, intrinsics), "orthonormal"),
        (compose_camera(cam2world, pixels), "in pixels by the image side"),
        (compose_camera(cam2world, transposed), "principal point|rows"),
        (torch.zeros(1, 25), "last row came as"),
    ):
        with pytest.raises(ValueError, match=message):
            validate_camera(c)
    with pytest.raises(ValueError, match=r"\(2, 4, 4\) and intrinsics \(2, 9\)"):
        compose_camera(cam2world, intrinsics.flatten(1))
    with pytest.raises(ValueError, match=r"cameras came as \(25,\)"):
        camera_rays(good[0], 4)
    with pytest.raises(ValueError, match="resolution came as 0"):
        camera_rays(good, 0)
