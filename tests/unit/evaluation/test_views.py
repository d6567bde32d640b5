"""Heads against the truth: a ball whose depth, normals and views are known by hand."""

import pandas as pd
import pytest
import torch
from tiny_models import rng, tiny_eg3d
from tiny_views import RADIUS, ball_view, write_views

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.evaluation import views
from dmgi_lib.evaluation.report import read_csv
from dmgi_lib.generators.eg3d import EG3DOutput, look_at
from dmgi_lib.recognizers import Recognizer

C = look_at([0.0, 20.0], 0.0)


def true_view(person: int, c: torch.Tensor) -> EG3DOutput:
    seen = [ball_view(person, camera, 64) for camera in c]
    image, mask, depth = (torch.stack(x) for x in zip(*seen, strict=True))
    alpha = (mask > 0).float()[:, None]
    return EG3DOutput(image * 2 - 1, image * 2 - 1, depth[:, None], alpha)


def test_normals_of_a_ball_point_away_from_its_centre():
    view = true_view(0, C)
    points = views.surface(C, view.image_depth)
    inside = -torch.nn.functional.max_pool2d(-view.image_alpha, 5, 1, 2)[:, 0] > 0
    torch.testing.assert_close(
        points[inside].norm(dim=-1), torch.full((int(inside.sum()),), RADIUS), atol=1e-4, rtol=0
    )
    outward = points[inside] / RADIUS
    assert ((views.normals(points)[inside] * outward).sum(-1) > 0.95).all()
    assert views.normal_angle(C, view.image_depth, view.image_depth, inside[:, None]).max() < 0.1
    flat = torch.full_like(view.image_depth, 2.5)
    assert views.normal_angle(C, flat, view.image_depth, inside[:, None]).min() > 20


def test_points_are_seen_where_they_are():
    view = true_view(0, C)
    hit = view.image_depth[:, 0] > 0
    places, far = views.project(views.surface(C, view.image_depth), C)
    centres = (torch.arange(64) + 0.5) / 32 - 1
    grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1)
    wanted = grid.expand(2, -1, -1, -1)
    torch.testing.assert_close(places[hit], wanted[hit], atol=1e-4, rtol=0)
    torch.testing.assert_close(far[hit], view.image_depth[:, 0][hit], atol=1e-4, rtol=0)


def test_views_of_one_ball_agree_and_those_of_two_do_not():
    """Light is fixed to the world here, so the same point has the same colour."""
    one, other, another = (true_view(p, C[k : k + 1]) for p, k in ((0, 0), (0, 1), (1, 1)))
    alike = views.masked_mean(*views.reprojection(one, C[:1], other, C[1:]))
    unlike = views.masked_mean(*views.reprojection(one, C[:1], another, C[1:]))
    assert alike < 0.05 and unlike > 3 * alike
    far = EG3DOutput(*vars(other).values())
    object.__setattr__(far, "image_depth", other.image_depth + 10)
    assert not views.reprojection(one, C[:1], far, C[1:])[1].any()


def test_all_of_a_ball_agrees_with_views_from_its_sides():
    class Balls:
        def planes(self, ws):
            return None

        def synthesis(self, ws, c, planes):
            view = true_view(0, c)
            if self.painted and c[0, 3].abs() > 0.1:  # colours that do not turn with the head
                object.__setattr__(view, "image_raw", view.image_raw.flip(3))
            return view

    balls, ws = Balls(), torch.zeros(1, 6, 8)
    balls.painted = False
    assert views.agreement(balls, ws) > 0.9
    balls.painted = True
    assert views.agreement(balls, ws) < 0.7


def test_psnr_counts_the_head_alone():
    truth = torch.zeros(1, 3, 4, 4)
    mask = torch.zeros(1, 4, 4)
    mask[:, :2] = 1
    image = truth.clone()
    image[:, :, 2:] = 1
    image[:, :, :2] = 0.2
    assert views.head_psnr(image, truth, mask).item() == pytest.approx(20.0, abs=1e-3)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("faces")
    write_views(root / "views", 3, 3)
    return root


def test_people_begin_with_their_most_frontal_view(root):
    people = views.people_of(FaceDataset(root, "views"), 2)
    assert people.images.shape == (2, 3, 3, 128, 128) and people.depth.shape == (2, 3, 128, 128)
    assert (people.yaw[:, 0].abs() <= people.yaw.abs().amin(1)).all()
    write_views(root / "train_views", 1, 1)
    with pytest.raises(ValueError, match=r"seen by \[1\] cameras"):
        views.people_of(FaceDataset(root, "train_views"), 2)


def test_floors_stand_beside_what_is_measured(root):
    people, G = views.people_of(FaceDataset(root, "views"), 2), tiny_eg3d(c_dim=0)
    ws = G.mapping(torch.randn(2, 8, generator=rng()))
    people = views.People(
        torch.nn.functional.avg_pool2d(people.images.flatten(0, 1), 8).unflatten(0, (2, 3)),
        *(x[..., ::8, ::8] for x in (people.masks, people.depth)),
        *(people.cameras, people.yaw),
    )
    table = views.measure(G, ws, people)
    assert len(table) == 6 and table["read"].sum() == 2
    flat = table["depth error, flat disc"]
    assert ((flat > 0.01) & (flat < 0.06)).all()
    assert table["reprojection (L1)"].isna()[table["read"]].all()
    assert table["share within 0.1 of yaw ±15, by reprojection"].isna()[~table["read"]].all()
    means = views.report(table)
    assert means["view"].tolist()[:2] == ["read", "all other views"]
    assert means["views"].tolist()[:2] == [2, 4] and means["views"][2:].sum() == 4


def test_the_command_writes_a_table(root, tmp_path):
    torch.manual_seed(0)
    tiny_eg3d(c_dim=0, img_resolution=128).half().save_pretrained(tmp_path / "G")
    Recognizer(channels=(4, 8, 8, 8, 8)).save_pretrained(tmp_path / "loss_net")
    out = tmp_path / "views.csv"
    views.main(tmp_path / "G", tmp_path, root, people=2, steps=2, out=out, device="cpu")
    lines, rows = read_csv(out)
    assert lines[0] == "2 people of views, 2 steps of inversion" and "torch" in lines[1]
    table = pd.DataFrame(rows)
    assert table["views"].tolist()[:2] == [2, 4]
    assert table["depth error, mean head"].notna().all()
    with pytest.raises(ValueError, match="expected the weight folder of a TriPlaneGenerator"):
        views.main(tmp_path / "loss_net", tmp_path, root)
