"""The loss network and the judges learn to read, and what their cards state."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny_priors import SMALL

from data_prep.priors import trainer
from data_prep.priors.recipe import Folders
from data_prep.priors.recognizers import (
    SETTINGS,
    RecognizerRecipe,
    identity_measurements,
    measure,
    readings,
    start_from_fewer,
    true_codes,
)
from data_prep.shard_writer import write_split
from dmgi_lib.dataset import ATTRIBUTES, FaceDataset, to_float
from dmgi_lib.recognizers import AttributeJudge, Recognizer
from dmgi_lib.training.loop import LoopConfig, run


@pytest.mark.parametrize(
    ("which", "steps", "reading", "before", "after"),
    [
        ("judge_parser", 24, "parsing pixel accuracy", 0.3, 0.75),
        ("judge_attributes", 24, "hair-colour accuracy", 0.4, 0.7),
        ("judge_identity", 32, "variance explained, skin tone", 0.1, 0.5),
        ("loss_net", 32, "parsing pixel accuracy", 0.3, 0.6),
    ],
)
def test_a_few_steps_teach(which, steps, reading, before, after, tiny_faces, tmp_path):
    settings = replace(
        SETTINGS[which],
        seed=1,
        batch_size=8,
        learning_rate=4e-3,
        ema_half_life_steps=3,
        warmup_steps=0,
        max_steps=steps,
        minutes=5,
    )
    folders = Folders(tiny_faces, tmp_path, run_dir=tmp_path / "run")
    recipe = RecognizerRecipe(settings, folders, torch.device("cpu"))
    faces = recipe.train_set
    untrained = copy.deepcopy(recipe.network).eval()
    assert measure(untrained, faces)[reading] < before
    config = LoopConfig(
        run_dir=tmp_path,
        minutes=5,
        max_steps=steps,
        batch_size=8,
        seed=1,
        learning_rate=4e-3,
        ema_half_life_steps=3,
        cooldown=0.5,
        log_every=6,
    )

    def step_fn(step, rng, used):
        return recipe.step(step, rng)

    result = run(config, recipe.modules, recipe.optimizers, step_fn, ema=recipe.averaged)
    assert result.step == steps
    assert measure(result.ema[which], faces)[reading] > after


@pytest.fixture(scope="module")
def photographs(tiny_faces, tmp_path_factory):
    """The drawn faces as photographs: no shape codes or skin tones, hair of unknown colour."""
    root = tmp_path_factory.mktemp("photographs")
    for split in ("train", "test"):
        faces = FaceDataset(tiny_faces, split)
        kinds = {"image": "images", "mask": "masks", "scribble": "scribbles"}
        files = {column: faces.encoded(kind) for column, kind in kinds.items()}
        samples = []
        for n, record in enumerate(faces.records):
            unknown = dict.fromkeys(("shape_code", "skin_tone", "hair_color"))
            pictures = {column: encoded[n] for column, encoded in files.items()}
            samples.append(record | unknown | pictures)
        write_split(root / split, samples)
    return root


def test_photographs_teach_all_but_the_identity_head(photographs, tmp_path):
    folders = Folders(photographs, tmp_path, run_dir=tmp_path / "run")
    settings = replace(SMALL["loss_net"], max_steps=2, minutes=5.0)
    before = RecognizerRecipe(settings, folders, torch.device("cpu")).network.state_dict()
    trainer.train("loss_net", settings, folders, "cpu")
    after = Recognizer.from_pretrained(tmp_path / "loss_net").state_dict()
    for name, weight in before.items():
        same = torch.equal(weight.half().float(), after[name].float())
        assert same or not name.startswith("to_code"), name
    assert not torch.equal(before["to_labels.2.weight"], after["to_labels.2.weight"])
    card = (tmp_path / "loss_net" / "card.md").read_text()
    assert "identity head is untrained" in card and "parsing mIoU (test)" in card
    assert "variance explained" not in card and "nan" not in card


@pytest.mark.parametrize(
    ("network", "which"), [(Recognizer, "loss_net"), (AttributeJudge, "judge_attributes")]
)
def test_weights_that_read_fewer_attributes_are_a_start(network, which, tiny_faces, tmp_path):
    fewer, more = ("Male", "Bald"), ("Bald", "Room", "Male", "Suit")
    start_folder = tmp_path / "fewer"
    narrow, wide = network(attributes=fewer).eval(), network(attributes=more).eval()
    narrow.save_pretrained(start_folder)
    start_from_fewer(wide, start_folder)
    faces = to_float(FaceDataset(tiny_faces, "train").images[:2])
    expected, found = (readings(net, faces) for net in (narrow, wide))
    at = [ATTRIBUTES.index(name) for name in fewer]
    assert torch.allclose(found["attributes"][:, at], expected["attributes"][:, at], atol=1e-6)
    assert torch.allclose(found["hair_color"], expected["hair_color"], atol=1e-6)
    assert (found["attributes"] != 0).sum() == 2 * len(more)
    wide.save_pretrained(start_folder)
    with pytest.raises(ValueError, match=r"read \['Room', 'Suit'\], which the training set"):
        start_from_fewer(network(attributes=fewer), start_folder)
    settings = replace(SMALL[which], start=tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="--start takes a weight folder"):
        RecognizerRecipe(settings, Folders(tiny_faces, tmp_path), torch.device("cpu"))


@pytest.mark.parametrize("which", ["judge_parser", "judge_attributes"])
def test_judges_learn_from_photographs(which, photographs, tmp_path):
    folders = Folders(photographs, tmp_path)
    recipe = RecognizerRecipe(SMALL[which], folders, torch.device("cpu"))
    assert "code" not in recipe.step(0, torch.Generator().manual_seed(0))


def test_photographs_cannot_teach_the_identity_judge(photographs, tmp_path):
    with pytest.raises(ValueError, match="no shape codes and skin tones, which judge_identity"):
        folders = Folders(photographs, tmp_path)
        RecognizerRecipe(SMALL["judge_identity"], folders, torch.device("cpu"))


def test_identity_measurements_of_perfect_and_of_blind_codes(tiny_faces):
    faces = FaceDataset(tiny_faces, "train")  # its two second views have shapes of their own
    true = true_codes(faces)
    true[-2:] = true[:2]
    perfect = identity_measurements(true, faces)
    assert perfect["same pairs"] == 2
    assert perfect["verification AUC"] == 1.0
    assert perfect["cosine of same pairs"] == pytest.approx(1.0)
    assert perfect["variance explained, skin tone"] > 0.5
    blind = identity_measurements(torch.ones_like(true), faces)
    assert blind["verification AUC"] == pytest.approx(0.5)
    assert identity_measurements(true_codes(faces), faces)[
        "variance explained, head shape"
    ] == pytest.approx(1.0)
