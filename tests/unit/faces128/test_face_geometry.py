"""Cameras, eyes and scalp of the face world: what is drawn lies where the numbers say."""

import numpy as np
import pytest

from data_prep.faces128 import strands
from data_prep.faces128.head import head_model
from data_prep.faces128.person import sample_identity, sample_view
from data_prep.faces128.regions import CLASS
from data_prep.faces128.render import METRES_PER_UNIT, PIVOT, camera_label, render


def project(point: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Pixel (x, y) of a world point under an EG3D camera, at 128 px."""
    world2cam = np.linalg.inv(camera[:16].reshape(4, 4))
    x = camera[16:].reshape(3, 3) @ (world2cam @ np.r_[point, 1.0])[:3]
    return x[:2] / x[2] * 128


def test_cameras_follow_eg3d():
    camera = camera_label(0, 0, 0)
    assert np.allclose(camera[:16].reshape(4, 4)[:3, 3], [0, 0, 2.7])
    assert np.allclose(project(np.zeros(3), camera), [64, 64])
    assert np.allclose(camera[16:].reshape(3, 3)[[0, 1, 0], [0, 1, 2]], [4.2647, 4.2647, 0.5])
    for label in (camera_label(30, -10, 5), camera_label(-45, 20, 0)):
        rotation = label[:16].reshape(4, 4)[:3, :3]
        assert np.allclose(rotation @ rotation.T, np.eye(3)) and np.linalg.det(rotation) > 0.99
    left = project(np.array([0.1, 0, 0]), camera)
    up = project(np.array([0, 0.1, 0]), camera)
    assert left[0] > 64 and up[1] < 64  # the person's left is on the image's right, +y is up
    assert project(np.array([0, 0, 0.1]), camera_label(20, 0, 0))[0] < 64  # seen from their left


@pytest.mark.parametrize("seed", [3, 11])
def test_eyes_are_where_the_camera_says(seed):
    identity = sample_identity(seed)
    view = sample_view(identity, 0)
    view = type(view)(**{**vars(view), "glasses": "none", "eyes_closed": False, "yaw": 8.0})
    picture = render(identity, view, spp=1)
    body = head_model().vertices(identity.phenotype, {**identity.shape(), **view.expression})
    for name in ("l_eye", "r_eye"):
        ball = body[np.unique(head_model().faces[name])]
        centre = ((ball.max(0) + ball.min(0)) / 2 - PIVOT) / METRES_PER_UNIT
        x, y = project(centre, picture.camera)
        rows, columns = np.nonzero(picture.mask == CLASS[name])
        assert len(rows) > 0  # the lid may cover the centre itself
        assert np.hypot(columns + 0.5 - x, rows + 0.5 - y).min() < 1.5


def test_hair_grows_on_the_scalp_only():
    p = strands.sample_positions()
    above = strands.hairline_distance(p, 0.0) > 0.01
    forehead = (np.abs(p[:, 0]) < 0.03) & (p[:, 2] > 0) & (p[:, 1] > 0.03) & (p[:, 1] < 0.06)
    crown = p[:, 1] > 0.105
    assert above[crown].all() and not above[forehead].any()
    assert (strands.hairline_distance(p, 1.0) <= strands.hairline_distance(p, 0.0)).all()
    with pytest.raises(ValueError, match="empty"):
        strands.sample_roots(np.zeros(len(p)), 5, np.random.default_rng(0))
