"""The camera that a mask suggests, on people whose cameras are known."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import face_mask

from dmgi_lib import mask_camera
from dmgi_lib.dataset import FaceDataset, shipped_root
from dmgi_lib.generators.eg3d.cameras import camera_angles
from dmgi_lib.mask_camera import FACE, FILE, FOLDER, estimate_camera, features, mask_angles, only
from dmgi_lib.masks import flip_mask, mask_to_rgb, rgb_to_mask

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def people():
    faces = FaceDataset(shipped_root(), "test")
    cameras = torch.tensor([record["camera"] for record in faces.records])
    return torch.as_tensor(faces.masks[::3]), camera_angles(cameras)[::3]


def test_shipped_weights_read_unseen_people_as_their_card_says(people):
    masks, truth = people
    errors = (mask_angles(masks) - truth).abs()
    assert (errors.mean(0) < torch.tensor([1.1, 1.6, 1.0])).all(), errors.mean(0)
    assert (errors.quantile(0.95, dim=0) < torch.tensor([3.0, 4.5, 3.0])).all()
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 200_000


def test_a_face_without_hair_and_clothes_is_read(people):
    masks, truth = people
    alone = torch.where(FACE[masks.long()], masks, 0)
    errors = (mask_angles(alone) - truth).abs().mean(0)
    assert (errors < torch.tensor([1.2, 2.0, 1.1])).all(), errors


def test_mirrored_masks_are_seen_from_the_other_side(people):
    masks, truth = people
    both = mask_angles(masks) + mask_angles(flip_mask(masks))
    assert (both[:, [0, 2]].abs().mean(0) < 1.5).all()
    assert (mask_angles(masks)[:, 0].sign() == truth[:, 0].sign()).float().mean() > 0.95


def test_masks_in_all_forms_give_cameras(people):
    masks, _ = people
    c = estimate_camera(masks[0].numpy())
    assert c.shape == (25,)
    torch.testing.assert_close(camera_angles(c), mask_angles(masks[:1])[0], atol=1e-3, rtol=0)
    both = estimate_camera([masks[0], masks[1].repeat_interleave(2, 0).repeat_interleave(2, 1)])
    torch.testing.assert_close(both[0], c)
    torch.testing.assert_close(both[1], estimate_camera(masks[1]))
    assert torch.equal(rgb_to_mask(mask_to_rgb(masks[:5])), masks[:5])


def test_no_mask_makes_angles_beyond_what_fitting_showed():
    bounds = load_file(FOLDER / FILE)["bounds"]
    noise = torch.randint(0, 19, (20, 128, 128), generator=torch.Generator().manual_seed(0))
    blocks = noise[:, ::32, ::32].repeat_interleave(32, 1).repeat_interleave(32, 2)
    angles = mask_angles(torch.cat([noise, blocks]).to(torch.uint8))
    assert (angles >= bounds[0]).all() and (angles <= bounds[1]).all()
    assert (mask_angles(torch.zeros(1, 128, 128, dtype=torch.uint8)) == 0).all()


def test_features_of_a_class_are_its_own():
    mask = face_mask()
    x = features(mask[None])
    kept = torch.ones(1, 19, dtype=torch.bool)
    kept[0, 13] = False
    torch.testing.assert_close(
        only(x, kept)[:, 7:], features(mask.where(mask != 13, 0)[None])[:, 7:]
    )
    square = torch.zeros(1, 128, 128, dtype=torch.uint8)
    square[0, 32:64, 64:128] = 2
    there, root, cx, cy, sx, sy, cov = features(square)[0, 14:21].tolist()
    assert (there, root, cx, cy) == pytest.approx((1, 0.125**0.5, 0.5, -0.25))
    assert (sx, sy, cov) == pytest.approx((1 / 12**0.5, 0.5 / 12**0.5, 0), abs=1e-3)


def test_the_command_fits_and_measures(tiny_faces, tmp_path):
    mask_camera.main(tiny_faces, tmp_path)
    stored = load_file(tmp_path / FILE)
    assert stored["weight"].shape == (3, 134) and stored["weight"].isfinite().all()
    card = (tmp_path / "card.md").read_text()
    assert "Fitted on 16 masks" in card and "measured\non 8 masks" in card
