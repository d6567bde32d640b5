"""Ablations on tiny networks: each row changes what it says, and rows share what they can."""

import csv
from dataclasses import replace

import pytest
import torch
from test_measure import ground_truth
from test_stages import CONFIG, cache, dataset, loss_net, pipe  # noqa: F401 (fixtures)

from dmgi_lib.evaluation import ablations, judges
from dmgi_lib.presets import MINI
from dmgi_lib.training.feature_cache import FeatureCache, build


@pytest.fixture
def ablation(pipe, cache, dataset, loss_net, tmp_path, monkeypatch):  # noqa: F811
    folder = tmp_path / "weights"
    pipe.save_pretrained(folder)
    loss_net.save_pretrained(folder / "loss_net")
    torch.manual_seed(0)
    judged = judges.Judges(
        judges.ParserJudge(channels=(4, 4, 4, 4, 4)).eval(),
        judges.AttributeJudge(channels=(4, 4, 4, 4)).eval(),
        judges.IdentityJudge(channels=(4, 4, 4, 4)).eval(),
    )
    monkeypatch.setattr(ablations, "load_judges", lambda folder: judged)
    monkeypatch.setattr(ablations, "StageConfig", _fewer_held_out)
    caches = {"reverse": cache}
    return ablations.Ablation(
        folder, caches, dataset, ground_truth(2), tmp_path / "runs", minutes=0.01, batch_size=4
    )


def _fewer_held_out(stage, **options):
    from dmgi_lib.training.stage_trainer import StageConfig

    return StageConfig(stage, held_out=2, **options)


def test_rows_differ_in_what_they_name(ablation):
    local = ablation.trained("local", ablations.CHOICES["T: local path alone"])
    assert local.style_modulation.config.paths == "local"
    shared = len(ablation.m_of)
    pooled = ablation.trained("pooled", ablations.CHOICES["T: max over heads and words"])
    assert len(ablation.m_of) == shared == 1  # one M for both
    assert pooled.style_modulation.config.pool == "heads_and_tokens"
    single = ablation.trained("w", ablations.CHOICES["M: one row for all layers (W)"])
    assert single.mapping_network.config.latent == "w" and len(ablation.m_of) == 2
    row = ablation.measured(local)
    assert set(row) == {f"{c}{s}" for c in ablations.COLUMNS for s in ("", " @ exit 0")}
    assert all(value == value for value in row.values())


def test_every_choice_is_a_valid_configuration():
    for choice in ablations.CHOICES.values():
        replace(MINI.mapping, **choice.mapping)
        replace(MINI.modulation, **choice.modulation)
        _fewer_held_out(1, **choice.first)
        _fewer_held_out(2, **choice.second)


def test_a_leaking_cache_trains_m_only(ablation, pipe, dataset, tmp_path):  # noqa: F811
    noised = build(replace(CONFIG, source="noised"), pipe, dataset, tmp_path / "noised")
    assert isinstance(noised, FeatureCache) and noised.config.source == "noised"
    ablation.caches["noised"] = noised
    made = ablation.trained("noised", ablations.CHOICES["M: trained on noised pictures (leaks I)"])
    assert made.mapping_network is not None


def test_table_of_ablations_is_csv(tmp_path):
    rows = [{"row": "default", "N": 2, "mIoU": 0.5}]
    ablations._write(rows, 5.0, tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0].startswith("# N = 2") and next(csv.DictReader(lines[1:]))["mIoU"] == "0.5"
