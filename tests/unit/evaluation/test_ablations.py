"""Ablations on tiny networks: each row changes what it says, and rows share what they can."""

import copy
from dataclasses import replace

import pytest
import torch
import tyro
from tiny_evaluation import samples, save_folder, tiny_table

from dmgi_lib.evaluation import ablations
from dmgi_lib.evaluation.ablation_choices import CHOICES, MULTI, RECIPES
from dmgi_lib.evaluation.draw import draw
from dmgi_lib.evaluation.read import COLUMNS
from dmgi_lib.evaluation.report import read_csv
from dmgi_lib.presets import MINI
from dmgi_lib.training.losses import LossWeights
from dmgi_lib.training.trainer import StageConfig

ROWS = ablations.ROWS
BUDGET = ablations.Budget(steps=2, batch_size=4, held_out=2)


@pytest.fixture(scope="module")
def weights(pipe, loss_net, tmp_path_factory):
    """A pipeline folder with judges."""
    return save_folder(pipe, loss_net, tmp_path_factory.mktemp("weights"))


@pytest.fixture
def ablation(weights, cache, dataset, tmp_path):
    pipe = ablations.DMGIPipeline.from_pretrained(weights)
    table = tiny_table(tmp_path / "rows", pipe=pipe, truth=samples(2))
    parts = ({"reverse": cache}, dataset, tmp_path / "runs", BUDGET)
    return ablations.Ablation(weights, table, *parts)


def test_networks_differ_in_what_the_row_names_and_share_the_rest(ablation):
    local = ablation.networks(CHOICES["T: local path alone"])
    assert local["style_modulation"].config.paths == "local"
    pooled = ablation.networks(CHOICES["T: max over heads and words"])
    assert pooled["style_modulation"].config.pool == "heads_and_tokens"
    assert pooled["mapping_network"] is local["mapping_network"]  # one M for both
    assert len(ablation.trained) == 3
    single = ablation.networks(CHOICES["M: one row for all layers (W)"])
    assert single["mapping_network"].config.latent == "w"
    assert len(ablation.trained) == 5
    assert len(list((ablation.run_dir).iterdir())) == 5


def test_another_seed_is_another_training(ablation):
    one, other = (ablation.networks(replace(CHOICES["default"], seed=seed)) for seed in (0, 1))
    assert len(ablation.trained) == 4
    for name, network in one.items():
        pairs = zip(network.parameters(), other[name].parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs)


def test_means_and_intervals_over_seeds_by_hand():
    assert ablations.over_seeds("FID", [0.5]) == {"FID": 0.5}
    found = ablations.over_seeds("FID", [1.0, 2.0, 3.0])
    half = 4.3027 / 3**0.5  # Student's t of two degrees of freedom, deviation 1
    assert found["FID"] == 2.0
    assert found["FID low"] == pytest.approx(2.0 - half, abs=1e-3)
    assert found["FID high"] == pytest.approx(2.0 + half, abs=1e-3)


def test_rows_are_drawn_as_the_pipeline_draws_them(ablation, weights):
    pipe = ablations.DMGIPipeline.from_pretrained(weights, detail_psi=1.0)  # codes as predicted
    truth = ablation.table.truth
    with torch.no_grad():
        for network in (pipe.mapping_network.fc, *pipe.style_modulation.stacks.values()):
            for parameter in network.parameters():
                parameter.normal_(std=0.1)  # T starts as the identity, and M at one face
    M, T, images = pipe.mapping_network, pipe.style_modulation, {}
    for step in ablation.exits:
        images[step] = ablation.study.images(step, M, T)
        expected = draw(pipe, truth.prompts, truth.masks, step, ablation.budget.seed)[0]
        torch.testing.assert_close(images[step], expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(*images.values(), atol=1e-3)


def trainers_of(ablation, monkeypatch, *names):
    """name → (StageConfig, cache, networks to start from, its loop) of each training of the row."""
    made = []

    class Result:
        def __init__(self, config):
            networks = ablations.STAGES[config.stage]
            self.step = config.stage
            self.ema = {name: FakeNetwork(f"stage {config.stage}") for name in networks}

    class FakeNetwork:
        def __init__(self, origin):
            self.origin = origin

        def eval(self):
            return self

    class FakeTrainer:
        def __init__(self, config, cache, dataset, G, loss_net, **networks):
            self.made = (config, cache, networks)

        def fit(self, loop):
            made.append((*self.made, loop))
            return Result(self.made[0])

    monkeypatch.setattr(ablations, "StageTrainer", FakeTrainer)
    found = {}
    for name in names:
        ablation.networks(ROWS[name])
        found[name] = made.copy()
        made.clear()
    return found


def test_stages_get_their_choices_and_equal_steps(ablation, monkeypatch):
    names = [
        "default",
        "T: trained for twice the steps",
        MULTI,
        "stage 3: steps drawn early",
    ]
    names += ["losses: no parsing", "steps: only the first"]
    made = trainers_of(ablation, monkeypatch, *names)
    assert [(config.stage, loop.max_steps) for config, *_, loop in made["default"]] == [
        (1, BUDGET.steps),
        (2, BUDGET.steps),
    ]
    ((longer, _, _, loop),) = made["T: trained for twice the steps"]  # M is shared
    assert longer.stage == 2 and loop.max_steps == 2 * BUDGET.steps
    ((third, _, networks, loop),) = made[MULTI]
    assert third == StageConfig(3, LossWeights(), held_out=2)
    assert loop.max_steps == BUDGET.steps
    assert networks["mapping_network"].origin == "stage 1"
    assert networks["style_modulation"].origin == "stage 2"
    shared = [network for found in ablation.trained.values() for network in found.values()]
    assert not any(network in shared for network in networks.values())  # it trains copies
    ((early, *_),) = made["stage 3: steps drawn early"]
    assert (early.stage, early.sampling) == (3, "early")
    assert [config.weights.parsing for config, *_ in made["losses: no parsing"]] == [0, 0]
    assert [config.steps for config, *_ in made["steps: only the first"]] == [(0,), (0,)]


def test_every_choice_is_a_valid_configuration_and_differs_from_what_it_stands_against():
    for name, choice in ROWS.items():
        replace(MINI.mapping, **choice.mapping)
        replace(MINI.modulation, **choice.modulation)
        LossWeights(**choice.losses)
        for stage, options in ((1, choice.first), (2, choice.second), (3, choice.third or {})):
            StageConfig(stage, **options)
        if name in ("default", MULTI):  # the latter is stage 3 instead of a longer stage 2
            continue
        order = list(CHOICES if name in CHOICES else RECIPES)
        assert order.index(choice.against) < order.index(name)
        one, other = options_of(choice), options_of(ROWS[choice.against])
        changed = {key for key in {**one, **other} if one.get(key) != other.get(key)}
        assert len(changed) == 1, (name, changed)
        assert (choice.third is None) is (ROWS[choice.against].third is None)


def options_of(choice):
    """Option → value; stages 1 and 2 may share one."""
    found = {"source": choice.source, "longer": choice.longer}
    for options in (choice.mapping, choice.modulation, choice.losses, choice.first, choice.second):
        found |= options
    return found | {f"stage 3 {key}": value for key, value in (choice.third or {}).items()}


def test_every_open_choice_of_the_method_has_a_row():
    given = [{**c.mapping, **c.modulation, **c.first, **c.second} for c in CHOICES.values()]
    for option in ("latent", "origin", "pool", "average", "paths", "sampling", "steps", "targets"):
        assert any(option in one for one in given), option
    third = [c.third for c in CHOICES.values() if c.third is not None]
    for option in ("schedule", "sampling", "targets"):
        assert any(option in one for one in third), option
    assert any(c.source == "noised" for c in CHOICES.values())


def test_recipes_and_caches_are_those_that_a_row_names(ablation, monkeypatch):
    for source in ("noised", "augmented"):
        ablation.caches[source] = other = copy.copy(ablation.caches["reverse"])
        other.manifest = other.manifest | {"config": other.manifest["config"] | {"source": source}}
    leaking, drawn = "M: trained on noised pictures (leaks I)", "recipe: x as if drawn by hand"
    made = trainers_of(ablation, monkeypatch, *RECIPES, leaking)
    used = {name: [cache for _, cache, *_ in made[name]] for name in (leaking, drawn)}
    assert used[drawn] == [ablation.caches["augmented"]] * 3
    assert used[leaking] == [ablation.caches["noised"], ablation.caches["reverse"]]
    found = {name: made[f"recipe: {name}"][-1][0] for name in ("image critic", "fine rows mixed")}
    assert found["image critic"].weights.adversarial == 0.08
    assert found["fine rows mixed"] == StageConfig(3, LossWeights(), mixing=0.3, held_out=2)
    last = [made[name][-1][3] for name in RECIPES]
    assert {(loop.max_steps, loop.batch_size) for loop in last} == {(2, 4)}


def test_rows_are_trained_and_read_once_and_written_with_their_gains(
    weights, cache, dataset, tmp_path, monkeypatch, capsys
):
    data = tmp_path / "faces"
    data.symlink_to(dataset.root)
    original = ablations.FaceDataset

    def opened(root, split):
        return original(root, "train")  # the drawn data set has no test split

    monkeypatch.setattr(ablations, "FaceDataset", opened)
    names = ["default", "T: local path alone", "M: trained on noised pictures (leaks I)"]
    arguments = ["--only", *names, "--weights", str(weights), "--data", str(data), "--n", "3"]
    arguments += ["--cache", str(cache.folder), "--noised-cache", str(tmp_path / "none")]
    arguments += [
        "--seeds",
        "2",
        "--steps",
        "2",
        "--batch-size",
        "4",
        "--held-out",
        "2",
        "--device",
        "cpu",
    ]
    for name in ("run-dir", "rows", "out"):
        arguments += [f"--{name}", str(tmp_path / name)]
    tyro.cli(ablations.run, args=arguments)
    lines, rows = read_csv(tmp_path / "out")
    text = "\n".join(lines)
    assert "2 steps of training for M, for T" in text and "N = 3 test identities" in text
    assert "judge_attributes" in text and "--source noised" in text  # says why a row is missing
    assert [(row["row"], row["exit step"]) for row in rows] == [
        (name, step) for name in names[:2] for step in (0, 2)
    ]
    for row in rows:
        assert (row["N"], row["seeds"]) == (3, 2)
        for column in COLUMNS:
            assert row[f"{column} low"] <= row[f"{column} high"]
            assert (f"{column} gain" in row) == (row["row"] != "default")
    default, local = rows[0], rows[2]
    assert local["SSIM gain"] == pytest.approx(local["SSIM"] - default["SSIM"], abs=1e-4)
    perceptual = "perceptual distance (parser features)"
    gain = default[perceptual] - local[perceptual]
    assert local[f"{perceptual} gain"] == pytest.approx(gain, abs=1e-4)

    monkeypatch.setattr(ablations, "StageTrainer", lambda *a, **k: pytest.fail("trained again"))
    monkeypatch.setattr(ablations.StepStudy, "images", lambda *a, **k: pytest.fail("drawn again"))
    tyro.cli(ablations.run, args=arguments)
    assert read_csv(tmp_path / "out")[1] == rows
    assert "default, exit 0" in capsys.readouterr().out
