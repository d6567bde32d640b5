"""The survey's measurements see what is wrong, and the card says what they found."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data_prep.faces128 import build, card
from data_prep.faces128.built_sample import project, read
from data_prep.faces128.distributions import distributions, framing, spreads, years
from data_prep.faces128.render import camera_label
from data_prep.faces128.survey import edge_agreement, edges, eye_errors, survey
from dmgi_lib.dataset import ATTRIBUTES, shipped_root
from dmgi_lib.masks import CLASSES
from dmgi_lib.training import run_files


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("surveyed")
    people = {n: build.sample_person("test", n) for n in range(60)}
    open_eyed = [
        n
        for n, (_, identity, view, _) in people.items()
        if not view.eyes_closed
        and view.glasses == "none"
        and view.hat == "none"
        and view.expression.get("eyeSquintLeft", 0.0) < 0.5
        and abs(view.yaw) < 20
        and abs(view.pitch) < 10
        and identity.hair_style in ("bald", "buzz", "swept_back")
    ]
    build.build(root, {"test": open_eyed[:1]}, workers=1, spp=4)
    return root


def test_cameras_and_depth_hit_the_eyes(built):
    (sample,) = read(built, "test")
    errors = eye_errors(sample)
    assert errors and max(e[0] for e in errors) <= 1 and max(e[1] for e in errors) <= 0.01
    camera = np.array(sample.record["camera"])
    shifted = camera.copy()
    shifted[[18, 21]] += 0.04  # the principal point, 5 pixels off
    wrong = replace(sample, record={**sample.record, "camera": shifted.tolist()})
    assert min(e[0] for e in eye_errors(wrong)) > 1
    farther = replace(sample, depth=sample.depth * 1.03)
    assert min(e[1] for e in eye_errors(farther)) > 0.01
    assert project(np.zeros(3), camera, 128) == pytest.approx((64, 64), abs=1e-3)


def test_edges_agree_until_masks_move(built):
    (sample,) = read(built, "test")
    agreement = [edge_agreement(sample.image, sample.mask, shift) for shift in (0, 2, 5)]
    assert agreement[0] > 1.5 and agreement[0] > 1.15 * agreement[1] > 1.15 * agreement[2]
    noise = np.random.default_rng(0).integers(0, 255, sample.image.shape).astype(np.uint8)
    assert edge_agreement(noise, sample.mask) == pytest.approx(1, abs=0.1)


def test_edges_lie_on_both_sides():
    mask = np.zeros((4, 6), int)
    mask[:, 3:] = 1
    assert edges(mask).sum(0).tolist() == [0, 0, 4, 4, 0, 0]


def test_years_follow_the_models_scale():
    assert years(0.67) == pytest.approx(25) and years(1.0) == pytest.approx(90)


def seen_from(sample, yaw, pitch, roll):
    camera = camera_label(yaw, pitch, roll).tolist()
    return replace(sample, record={**sample.record, "camera": camera})


def test_framing_follows_the_camera(built):
    (sample,) = read(built, "test")
    x, y, tilt = framing(seen_from(sample, 0, 0, 0))
    assert abs(x - 64) < 2 and 50 < y < 62 and abs(tilt) < 3
    _, _, rolled = framing(seen_from(sample, 0, 0, 8))
    assert abs(rolled - tilt) == pytest.approx(8, abs=0.5)
    turned, _, _ = framing(seen_from(sample, 20, 0, 0))
    assert turned < x - 1  # seen from their left, eyes lie before the middle of the head
    column = np.nonzero(sample.mask == CLASSES.index("l_eye"))[1].mean()
    other = np.nonzero(sample.mask == CLASSES.index("r_eye"))[1].mean()
    assert framing(sample)[0] == pytest.approx((column + other) / 2 + 0.5, abs=2)


def test_distributions_tell_what_was_drawn(built):
    (sample,) = read(built, "test")
    calm = replace(sample, view=replace(sample.view, expression={}, mouth_open=False))
    raised = {"browOuterUpLeft": 0.6, "eyeSquintLeft": 0.8, "mouthSmileLeft": 0.7}
    smiling = replace(sample, view=replace(sample.view, expression=raised, mouth_open=True))
    tables = distributions([calm, calm, calm, smiling])
    for name in ("smile", "mouth open", "eyes narrowed", "brows raised"):
        assert tables["expression"][name] == 0.25
    assert tables["expression"]["eyes closed"] == tables["expression"]["brows lowered"] == 0
    wanted = {"sex", "age, years", "skin tone, 0 light to 1 dark", "hair colour", "hairstyle",
              "expression", "yaw, degrees", "pitch, degrees", "roll, degrees", "garment",
              "backdrop", "light", "mask class in picture"}  # fmt: skip
    assert wanted <= set(tables) and set(tables["mask class in picture"]) == set(CLASSES)
    ends = [replace(sample, view=replace(sample.view, yaw=yaw)) for yaw in (-10.0, 30.0)]
    assert spreads(ends)["yaw, degrees"] == (10.0, 20.0)


def test_only_a_built_set_can_be_read(tmp_path):
    for root in (tmp_path, shipped_root()):
        with pytest.raises(FileNotFoundError, match="make faces"):
            read(root, "test")


def test_survey_and_card_tell_what_is_there(built, tmp_path):
    samples = read(built, "test")
    found = survey(samples)
    json.dumps(found)
    assert found["samples"] == 1 and found["eyes"] >= 1
    assert found["captions of a sample, fewest"] >= 5
    assert found["edge agreement"] > found["edge agreement, masks shifted by 2 px"]
    assert set(found["attributes"]) == set(ATTRIBUTES)
    told = samples[0].record["attributes"]
    for name, (true, unknown) in found["attributes"].items():
        assert unknown == (told[name] is None) and true == bool(told[name])
    for title, shares in found["distributions"].items():
        assert (
            shares
            and max(shares.values()) in (0, 1)
            and title in card.markdown(built, found, "test")
        )  # one sample is all of them, or has nothing on
    rendered = "rendered 1 samples in 2 s: 2.00 s a sample with 1 processes\n"
    card.write_card(built, tmp_path, "test", rendered=rendered)
    text = (tmp_path / "card.md").read_text()
    for words in (
        "CC0",
        "Apache-2.0",
        "likeness",
        "Known limits",
        "| test | 1 | 1 |",
        "contact_sheet",
        "midpoint of the eyes, y, px",
        "2.00 s a sample with 1 processes.",
        "No attribute judge has been trained",
        "edge agreement, masks shifted by 2 px",
    ):
        assert words in text, words
    assert all(f"| {name}" in text for name in (*ATTRIBUTES, *CLASSES))
    assert text.count("not measured") == len(ATTRIBUTES) and str(tmp_path) not in text
    assert Image.open(tmp_path / "contact_sheet.png").size == (1280, 128)


@pytest.fixture
def judge(tmp_path):
    """A card as the training of the judge writes it."""
    read_well = {name: 0.97 for name in ATTRIBUTES if name != "Young"} | {"Chubby": 0.612}
    measured = {f"balanced accuracy {name} (test)": value for name, value in read_well.items()}
    measured |= {"attribute balanced accuracy (test)": 0.5, "hair-colour accuracy, red (test)": 1}
    text = run_files.card("Judge", "a.b", ["seed 0"], [], "", "measurement", measured)
    (tmp_path / "card.md").write_text(text)
    (tmp_path / "measured.json").write_text(json.dumps(measured, indent=1))
    return tmp_path


@pytest.mark.parametrize("name", ["card.md", "measured.json"])
def test_card_tells_what_a_judge_can_read(built, judge, name):
    found = survey(read(built, "test"))
    text = card.markdown(built, found, "test", judge / name)
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("| ")}
    assert rows["Bald"].endswith("| 97.0 % |") and rows["Chubby"].endswith("| 61.2 % |")
    assert rows["Young"].endswith("| not measured |")
    told = len(ATTRIBUTES) - 1  # all but Young
    assert f"{told - 1} of {told} reach 85 %; below: Chubby 61.2 %." in text
    (judge / name).write_text("# another card\n")
    with pytest.raises(ValueError, match="balanced accuracy Bald"):
        card.judged(judge / name)
    assert card.judged(judge / "nothing.md") == {}


def test_celebas_names_are_used():
    known = set(card.CELEBA) & set(ATTRIBUTES)
    assert len(card.CELEBA) == len(set(card.CELEBA)) == 40 and len(known) == 33
