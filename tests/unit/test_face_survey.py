"""The survey's measurements see what is wrong, and the card says what they found."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data_prep.faces128 import build, card
from data_prep.faces128.survey import (
    edge_agreement,
    edges,
    eye_errors,
    project,
    read,
    survey,
    years,
)
from dmgi_lib.dataset import ATTRIBUTES


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


def test_survey_and_card_tell_what_is_there(built, tmp_path):
    samples = read(built, "test")
    found = survey(samples)
    json.dumps(found)
    assert found["samples"] == 1 and found["eyes"] >= 1
    assert found["edge agreement"] > found["edge agreement, masks shifted by 2 px"]
    assert set(found["attributes"]) == set(ATTRIBUTES)
    told = samples[0].record["attributes"]
    for name, (true, unknown) in found["attributes"].items():
        assert unknown == (told[name] is None) and true == bool(told[name])
    for shares in found["distributions"].values():
        assert shares and max(shares.values()) == 1.0  # one sample is all of them
    card.write(built, tmp_path, "test")
    text = (tmp_path / "card.md").read_text()
    for word in (
        "CC0",
        "Apache-2.0",
        "likeness",
        "Known limits",
        "| test | 1 | 1 |",
        "contact_sheet",
    ):
        assert word in text
    assert all(f"| {name}" in text for name in ATTRIBUTES)
    assert Image.open(tmp_path / "contact_sheet.png").size == (1280, 128)


def test_celebas_names_are_used():
    known = set(card.CELEBA) & set(ATTRIBUTES)
    assert len(card.CELEBA) == 40 and len(known) >= 30
