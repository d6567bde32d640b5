"""Styles are learnt from pairs, a style at a time, and G stays as it is."""

from dataclasses import replace

import pytest
import torch
from tiny_priors import SMALL
from tiny_views import STYLES, with_views

from data_prep.priors import style_offsets
from data_prep.priors.recipe import Folders
from data_prep.priors.style_offsets import Styles
from data_prep.priors.trainer import train
from dmgi_lib.files import state_hash
from dmgi_lib.weight_folder import load_part

CPU = torch.device("cpu")


@pytest.fixture
def folders(tiny_faces, trained, tmp_path):
    faces = with_views(tiny_faces, tmp_path / "faces")
    return Folders(faces, trained, tmp_path / "style_offsets", tmp_path / "run")


def test_each_person_is_paired_with_the_own_photograph(folders):
    recipe = Styles(SMALL["style_offsets"], folders, CPU)
    assert recipe.names == tuple(STYLES)
    assert [len(rows) for rows in recipe.rows_of] == [4, 4]
    seen = set(recipe.person[torch.cat(recipe.rows_of)].tolist())
    unseen = set(recipe.person[torch.cat(recipe.unseen_of)].tolist())
    assert len(unseen) == 2 and not seen & unseen
    for row in range(len(recipe.styled)):
        photograph = recipe.photographs[recipe.person[row]].float()
        first = list(STYLES.values())[row // 6][0]
        difference = photograph[first] - recipe.styled.images[row].float()[0]
        assert difference.abs().mean() < 3  # compressed anew


def test_it_learns_and_leaves_G_alone(folders):
    settings = replace(SMALL["style_offsets"], learning_rate=0.03)
    recipe = Styles(settings, folders, CPU)
    G = state_hash(recipe.G)
    before = recipe.measure(recipe.styles)
    rng = torch.Generator().manual_seed(0)
    for step in range(24):
        recipe.step(step, rng)
    after = recipe.measure(recipe.styles)
    for name in STYLES:
        key = f"L1 to renders of {name}, held-out people"
        assert before[key] == pytest.approx(before[f"{key}, photograph"])
        assert after[key] < 0.95 * before[key]
    assert state_hash(recipe.G) == G
    assert recipe.sample(1, {"style_offsets": recipe.styles}).shape == (6 * 128, 2 * 128, 3)


def test_codes_are_found_once(folders, monkeypatch):
    codes = Styles(SMALL["style_offsets"], folders, CPU).codes
    monkeypatch.setattr(style_offsets, "invert", None)
    assert torch.equal(Styles(SMALL["style_offsets"], folders, CPU).codes, codes)
    with pytest.raises(TypeError):
        Styles(replace(SMALL["style_offsets"], inversion_steps=3), folders, CPU)


def test_it_ships_for_its_G_and_needs_renders_and_people(folders, tiny_faces, trained):
    settings = replace(SMALL["style_offsets"], max_steps=2)
    train("style_offsets", settings, folders, "cpu")
    styles = load_part(folders.out.parent, "style_offsets")
    assert styles.names == tuple(STYLES)
    assert styles.config.generator == state_hash(load_part(trained, "generator"))
    with pytest.raises(FileNotFoundError, match="styles"):
        Styles(settings, Folders(tiny_faces, trained), CPU)
    with pytest.raises(ValueError, match="holding out 9 of 6 .* leaves none; .* --styles 150"):
        Styles(replace(settings, held_out=9), folders, CPU)
