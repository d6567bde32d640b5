"""Pictures with cameras: mirrored ones are seen by mirrored cameras."""

import pytest
import torch
from tiny_views import ball_view, write_views

from data_prep.priors.camera_faces import CameraFaces, joined, rows_of_people
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.generators.eg3d.cameras import camera_rays, compose_camera, look_at, mirrored_camera


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = write_views(tmp_path_factory.mktemp("faces") / "train_views", 2)
    return CameraFaces(FaceDataset(folder.parent, "train_views"), torch.device("cpu"))


def test_a_mirrored_camera_sends_mirrored_rays():
    intrinsics = torch.tensor([[4.0, 0.1, 0.45], [0.0, 4.2, 0.5], [0.0, 0.0, 1.0]])
    c = compose_camera(look_at(30.0, 10.0, roll=5.0)[:16].view(4, 4), intrinsics)[None]
    flip = torch.tensor([-1.0, 1.0, 1.0])
    for found, plain in zip(camera_rays(mirrored_camera(c), 4), camera_rays(c, 4), strict=True):
        wanted = plain.view(4, 4, 3).flip(1) * flip
        torch.testing.assert_close(found.view(4, 4, 3), wanted)
    torch.testing.assert_close(mirrored_camera(look_at(20.0, 5.0)), look_at(-20.0, 5.0))


def test_a_batch_is_what_its_camera_sees(views):
    rows = torch.tensor([0, 5])
    seen = views.batch(rows, torch.tensor([False, True]))
    assert seen.image.shape == (2, 3, 128, 128) and seen.mask.shape == seen.depth.shape
    for k, flipped in enumerate((False, True)):
        camera = views.cameras[rows[k]]
        image, _, depth = ball_view(k, camera)
        assert ((image.flip(2) if flipped else image) * 2 - 1 - seen.image[k]).abs().max() < 0.02
        assert ((depth.flip(1) if flipped else depth) - seen.depth[k]).abs().max() < 2e-4
        # the ball is round, so its depth is that of the camera that came with it
        _, _, again = ball_view(k, seen.camera[k])
        assert (again - seen.depth[k]).abs().max() < 2e-4
        assert flipped == bool((seen.camera[k] != camera).any())
    assert set(seen.mask[1].unique().tolist()) <= {0, 1, 5}  # eyes change sides
    assert joined(seen, seen).depth.shape == (4, 128, 128)


def test_rows_are_grouped_by_person(views):
    assert [rows.tolist() for rows in rows_of_people(views.dataset)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]


def test_photographs_without_cameras_are_refused(dataset):
    with pytest.raises(ValueError, match="without a camera"):
        CameraFaces(dataset, torch.device("cpu"))
