"""Skin, clothes, hair, backdrops and exposure of the face world, without rendering."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from data_prep.faces128 import clothes, hair, regions, relief, scene, skin, traits
from data_prep.faces128.backdrop import background
from data_prep.faces128.denoising import FirstHits, denoise, strand_directions
from data_prep.faces128.head import head_model, vertex_normals
from data_prep.faces128.part import Part, clip
from data_prep.faces128.person import sample_identity, sample_view
from data_prep.faces128.regions import CLASS
from data_prep.faces128.render import camera_label, exposure, soften
from data_prep.faces128.surface import split, surface

NEUTRAL = sample_view(sample_identity(0), 0)


def adult(**changes):
    return replace(sample_identity(0), **{"bags": 0.0, "moles": 0, "lines": 1.0, **changes})


def grid(n):
    """(V, 2) points and (F, 3) triangles of an n x n square grid."""
    y, x = np.mgrid[0 : n + 1, 0 : n + 1]
    i = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)
    a, b, c, d = i[:-1, :-1].ravel(), i[:-1, 1:].ravel(), i[1:, 1:].ravel(), i[1:, :-1].ravel()
    return np.stack([x.ravel(), y.ravel()], 1) / n, np.r_[np.c_[a, b, c], np.c_[a, c, d]]


def area(points, faces):
    first, second = (points[faces[:, k]] - points[faces[:, 0]] for k in (1, 2))
    return 0.5 * (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_split_leaves_no_gaps(share):
    points, faces = grid(6)
    wanted = np.random.default_rng(3).random(len(faces)) < share
    made = split(faces, len(points), wanted)
    points = np.concatenate([points, points[made.ends].mean(1)])
    assert (area(points, made.faces) > 1e-9).all()  # no triangle is turned over or empty
    assert np.isclose(area(points, made.faces).sum(), 1.0)
    edges = np.sort(np.stack([made.faces, np.roll(made.faces, -1, 1)], -1).reshape(-1, 2), 1)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    rim = points[edges[count == 1]]  # only the square's own rim belongs to one triangle
    assert ((rim == 0) | (rim == 1)).any(2).all() and (count <= 2).all()
    assert len(made.faces) >= len(faces) + 3 * wanted.sum()


def test_surface_is_fine_and_goes_through_the_head():
    model, s = head_model(), surface()
    body = model.vertices({"age": 0.66}, {})
    fine = s.refined(body)
    assert np.array_equal(fine[: len(body)], body)
    face = (s.average[s.faces].mean(1)[:, 2] > 0) & (s.average[s.faces].mean(1)[:, 1] > -0.1)
    corners = fine[s.faces[face]]
    assert np.median(np.linalg.norm(corners[:, 0] - corners[:, 1], axis=1)) < 0.002
    assert np.abs(fine[len(body) :] - s.average[len(body) :]).max() < 1e-6
    assert all(weight.min() >= 0 and weight.max() <= 1 for weight in s.regions.values())


def test_age_and_smile_fold_the_skin():
    smile = replace(NEUTRAL, expression={"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9})
    calm = replace(NEUTRAL, expression={})
    young, old = adult(age=0.6), adult(age=0.97)
    strength = {
        (name, who): relief.strengths(person, view)
        for name, view in (("calm", calm), ("smile", smile))
        for who, person in (("young", young), ("old", old))
    }
    assert strength["smile", "young"]["nasolabial"] > strength["calm", "young"]["nasolabial"] + 0.5
    for fold in ("nasolabial", "forehead", "crow", "marionette"):
        assert strength["calm", "old"][fold] > strength["calm", "young"][fold] + 0.2
    body = head_model().vertices({"age": 0.66}, {})
    groove = relief.folds()["nasolabial"].groove > 0.8
    normals = surface().normals(surface().refined(body))
    depth = [
        np.einsum("vd,vd->v", relief.skin_surface(p, calm, body) - surface().refined(body), normals)
        for p in (young, old)
    ]
    assert depth[1][groove].mean() < depth[0][groove].mean() - 0.0003


def test_skin_shows_what_it_is_said_to_show():
    view = replace(NEUTRAL, expression={}, lipstick=None, eye_makeup=0.0)
    plain = adult(freckles=0.0, rosy=0.0, skin_tone=0.2, beard="none", male=False)
    cheeks = np.hypot(np.abs(surface().average[:, 0]) - 0.043, surface().average[:, 1] + 0.033)
    cheeks = (cheeks < 0.008) & (surface().average[:, 2] > -0.02)
    base = skin.vertex_colors(plain, view)[cheeks]
    rosy = skin.vertex_colors(replace(plain, rosy=0.8), view)[cheeks]
    freckled = skin.vertex_colors(replace(plain, freckles=0.8), view)[cheeks]
    assert (rosy[:, 1] / rosy[:, 0]).mean() < 0.8 * (base[:, 1] / base[:, 0]).mean()
    assert freckled.std(0).mean() > 1.5 * base.std(0).mean()
    rough = skin.vertex_roughness(replace(plain, oily=1.0), view)
    assert rough.mean() < skin.vertex_roughness(replace(plain, oily=0.0), view).mean() - 0.01
    assert rough.min() >= 0.2 and rough.max() <= 0.9


def test_moles_lie_on_bare_skin():
    person = adult(moles=4)
    places = relief.mole_places(person)
    assert len(places) == 4 and (places[:, 2] > -0.03).all()
    assert np.array_equal(places, relief.mole_places(person))


def test_clip_keeps_one_side():
    points, faces = grid(5)
    level = points[:, 0] - 0.37
    cut, kept = clip(points, faces, level)
    assert np.isclose(area(cut, kept).sum(), 0.63) and cut[kept][..., 0].min() > 0.3699
    assert (area(cut, kept) > 0).all()
    edges = np.sort(np.stack([kept, np.roll(kept, -1, 1)], -1).reshape(-1, 2), 1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    assert (count == 1).sum() == 10 + 5 + 4 + 4  # neighbours share the points of the cut


@pytest.fixture(scope="module")
def bare():
    body = head_model().vertices({"age": 0.66}, {})
    fine = surface().refined(body)
    return fine, surface().normals(fine)


@pytest.mark.parametrize("kind", sorted({**traits.garments(True), **traits.garments(False)}))
def test_garments_cover_shoulders_and_leave_the_face(kind, bare):
    view = replace(NEUTRAL, cloth=kind, necktie=kind == "suit")
    parts = clothes.clothes(view, *bare, seed=1)
    points = np.concatenate([p.vertices.reshape(-1, 3) for p in parts])
    assert all(p.classes == CLASS["cloth"] for p in parts) and np.isfinite(points).all()
    assert points[:, 1].max() < -0.07 and np.ptp(points[:, 0]) > 0.4
    front = points[(np.abs(points[:, 0]) < 0.01) & (points[:, 2] > -0.08)]
    highest = {"turtleneck": -0.13, "vneck": -0.155, "scoop": -0.155}
    if kind in highest:
        assert (front[:, 1].max() > highest[kind]) == (kind == "turtleneck")
    if kind == "suit":
        bare_neck = clothes.clothes(replace(view, necktie=False), *bare, seed=1)
        assert len(parts) == len(bare_neck) + 1


def test_collars_end_in_points_and_lie_on_the_shirt(bare):
    w = clothes.Wardrobe(*bare, seed=1)
    for buttoned, narrowest in ((True, 0.008), (False, 0.02)):
        collar = clothes._folded_collar(w, np.full(3, 0.7), buttoned)
        front = collar.vertices[collar.vertices[:, 2] > -0.06]
        assert narrowest > np.abs(front[:, 0]).min() > narrowest / 4
        low = front[np.argmin(front[:, 1])]
        assert 0.018 < abs(low[0]) < 0.045 and -0.185 < low[1] < -0.16
        away = cKDTree(w.points).query(collar.vertices)[0]
        assert away.max() < 0.014
        normals = vertex_normals(collar.vertices, collar.faces)
        assert (normals[collar.vertices[:, 2] > -0.05, 2] > -0.5).mean() > 0.9


def test_teeth_stay_behind_the_chin():
    view = replace(NEUTRAL, expression={"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0})
    for seed in (3006, 3013):
        person = sample_identity(seed)
        body = head_model().vertices(person.phenotype, {**person.shape(), **view.expression})
        points = relief.skin_surface(person, view, body)
        assert scene._mouth(replace(view, mouth_open=False), body, points) == []
        p, facing = surface().average, surface().average_normals[:, 2] > 0.2
        chin = points[(p[:, 1] < -0.083) & (p[:, 2] > -0.03) & facing]
        tree = cKDTree(chin[:, :2])
        for part in scene._mouth(replace(view, mouth_open=True), body, points):
            teeth = part.vertices[np.unique(part.faces)]
            distance, near = tree.query(teeth[:, :2])
            low = distance < 0.0015
            assert (teeth[low, 2] < chin[near[low], 2]).all()


def test_hairstyles_differ_and_locks_vary():
    assert len(hair.STYLES) + 2 >= 12  # "bald" and "receding" are no entries
    wanted = {**traits.hair_styles(True, 0.5, True), **traits.hair_styles(False, 0.5, False)}
    assert set(wanted) - {"bald", "receding"} <= set(hair.STYLES)
    body = head_model().vertices({"age": 0.66}, {})
    normals = vertex_normals(body, head_model().faces["body"])
    rng = np.random.default_rng(0)
    grown = hair.grow_hair(
        replace(hair.STYLES["bob"], count=400), body, normals, 0.0, 0.0, 0.065, rng
    )
    shade = hair.shades(grown, 5, rng)
    assert set(shade) == {0, 1, 2, 3, 4} and np.bincount(shade).max() < 240
    knot = hair.bun(body, np.array([0.1, 0.05, 0.02]), rng)
    assert min(p.vertices[..., 1].min() for p in knot) > 0.07
    middle = np.concatenate([p.vertices.reshape(-1, 3) for p in knot]).mean(0)
    tied = replace(hair.STYLES["bun"], count=300, clump=0.0)
    tips = hair.grow_hair(tied, body, normals, 0.0, 0.0, 0.065, rng)[:, -1]
    assert np.quantile(np.linalg.norm(tips - middle, axis=1), 0.9) < 0.05  # all end in the knot
    whiskers = hair.grow_beard("sideburns", 0.008, body, normals, head_model().regions["lips"], rng)
    assert (np.abs(whiskers[:, 0, 0]) > 0.04).all() and (whiskers[:, 0, 1] < 0.02).all()


def test_backdrops_are_calm_varied_and_repeat():
    view = replace(NEUTRAL, light="studio")
    seen = []
    for kind in traits.BACKDROPS:
        picture, _ = background(replace(view, background_kind=kind), 128, np.random.default_rng(5))
        again, _ = background(replace(view, background_kind=kind), 128, np.random.default_rng(5))
        assert np.array_equal(picture, again) and picture.shape == (128, 128, 3)
        assert picture.min() > 0 and picture.max() <= 0.9
        assert np.abs(np.diff(picture, axis=0)).max() < 0.25  # out of focus: no hard edges
        seen.append(picture)
    assert all(np.abs(a - b).mean() > 0.01 for a, b in itertools.pairwise(seen))
    assert seen[0].std((0, 1)).max() < seen[3].std((0, 1)).max()  # plain paper, a room


@pytest.mark.parametrize("power", [0.02, 1.0, 30.0])
def test_exposure_gives_each_tone_its_brightness(power):
    mask = np.full((32, 32), CLASS["skin"])
    mask[:4] = CLASS["hair"]
    coverage = np.ones((32, 32, 1))
    light = np.random.default_rng(0).uniform(0.5, 1.0, (32, 32, 1)) * np.ones(3)
    values = []
    for tone in (0.0, 0.5, 1.0):
        picture = power * skin.skin_rgb(tone, 0) * light
        picture[:2] *= 2  # shining hair
        exposed = exposure(picture, coverage, mask, tone) * picture
        assert np.quantile(exposed @ [0.2126, 0.7152, 0.0722], 0.98) <= 0.96
        values.append(float(np.median(exposed[8:])))
    assert values[0] > 1.4 * values[1] > 1.4 * values[2] > 0.04


def hits(mask, albedo=0.4, purity=1.0):
    return FirstHits(mask, 0.0 * mask, np.full((*mask.shape, 3), albedo), 0.0 * mask + purity)


def test_soften_spreads_red_inside_the_skin_only():
    mask = np.full((128, 128), CLASS["skin"])
    mask[:, 24:] = CLASS["cloth"]
    picture = np.full((128, 128, 3), 0.2)
    picture[16, 8] = 1.0
    picture[:, 24:] = 0.7
    out = soften(picture, hits(mask))
    assert np.array_equal(out[:, 24:], picture[:, 24:])
    assert out[16, 10, 0] > out[16, 10, 1] > out[16, 10, 2] >= 0.2
    assert np.allclose(out[:, 23], 0.2, atol=1e-6)  # the cloth does not bleed into the skin
    plain, freckled = hits(mask), hits(mask)
    freckled.albedo[40, 8] = 0.1
    picture[40, 8] = 0.05
    assert soften(picture, freckled)[40, 8, 0] < 0.7 * soften(picture, plain)[40, 8, 0]


def test_denoise_evens_light_and_keeps_colours_and_edges():
    mask = np.full((128, 128), CLASS["skin"])
    mask[:, 64:] = CLASS["hair"]
    seen = hits(mask)
    seen.purity[:, 63:65] = 0.5
    seen.albedo[20, 20:40:3] = 0.1  # freckles
    rng = np.random.default_rng(0)
    grain = 0.5 * seen.albedo * rng.gamma(20, 1 / 20, (128, 128, 3))
    upright = np.stack([-np.ones((128, 128)), np.zeros((128, 128))], -1)  # cos and sin of 180°
    out = denoise(grain, seen, upright)
    assert out[60:100, 4:60].std() < 0.5 * grain[60:100, 4:60].std()
    assert out[20, 20:40:3].mean() < 0.4 * out[20, 21:40:3].mean()
    hair = out[10:118, 70:124].mean(-1)
    assert np.diff(hair, axis=0).std() < 0.4 * np.diff(hair, axis=1).std()  # streaks run down
    assert np.array_equal(out[:, 63], grain[:, 63])


def test_strands_point_where_hair_runs():
    camera = camera_label(0, 0, 0)
    t = np.linspace(0, 1, 6)[:, None]
    down, across = np.array([0, -0.1, 0]), np.array([0.1, 0, 0])
    for step, cosine in ((down, -1.0), (across, 1.0)):
        strand = np.array([0.01, 0.02, 0.0]) + t * step
        part = Part(strand[None], None, np.ones(3), CLASS["hair"], "hair")
        found = strand_directions([part], camera, np.full((128, 128), 2.7))
        strength = np.hypot(found[..., 0], found[..., 1])
        assert strength.max() > 0.99 and np.allclose(found[strength > 0.99], [cosine, 0], atol=0.02)
        behind = strand_directions([part], camera, np.full((128, 128), 2.2))
        assert np.abs(behind).max() == 0


def test_people_are_of_all_kinds():
    people = [sample_identity(seed) for seed in range(1500)]
    tones = np.histogram([p.skin_tone for p in people], 5, (0, 1))[0] / len(people)
    assert tones.min() > 0.15
    assert 0.45 < np.mean([p.male for p in people]) < 0.55
    colors = Counter("gray" if p.hair_color == "white" else p.hair_color for p in people)
    assert min(colors.values()) > 0.09 * len(people) and len(colors) == 5
    codes = np.stack([p.shape_code for p in people])
    assert np.abs(codes.mean(0)).max() < 0.12 and np.abs(codes.std(0) - 1).max() < 0.12
    views = [sample_view(p, 0) for p in people]
    for name, most in (("yaw", 45), ("pitch", 20), ("roll", 10)):
        values = np.abs([getattr(v, name) for v in views])
        assert values.max() <= most and np.quantile(values, 0.95) > most / 2
    assert {v.light for v in views} == set(traits.LIGHTS) and len(traits.LIGHTS) >= 6


def test_classes_follow_the_fine_surface():
    labels = regions.face_classes(0.0)
    assert len(labels) == len(surface().faces)
    wanted = {"skin", "nose", "l_ear", "r_ear", "mouth", "u_lip", "l_lip", "neck", "hair"}
    assert {CLASS[name] for name in wanted} == set(np.unique(labels))
    centre = surface().average[surface().faces].mean(1)
    upper, lower = (centre[labels == CLASS[name], 1].mean() for name in ("u_lip", "l_lip"))
    assert upper > lower
    assert (centre[labels == CLASS["l_ear"], 0] > 0).all()
