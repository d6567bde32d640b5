"""The loss network and the judges learn to read."""

import copy
from dataclasses import replace

import pytest
import torch

from data_prep.priors.recipe import Folders
from data_prep.priors.recognizer_measurements import MEASURE
from data_prep.priors.recognizers import SETTINGS, RecognizerRecipe
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
    assert MEASURE[which](untrained, faces)[reading] < before
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
    result = run(config, recipe.modules, recipe.optimizers, recipe.step, ema=recipe.averaged)
    assert result.step == steps
    assert MEASURE[which](result.ema[which], faces)[reading] > after
