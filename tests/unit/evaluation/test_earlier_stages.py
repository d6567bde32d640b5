"""Networks of stages 1 and 2 for Table 1: found in training runs, and refused if they are others'.

The table of a folder on disk is opened here too.
"""

import json

import pytest
import torch
from table_samples import tiny_clip, tiny_judges
from tiny_models import generator, pipeline
from tiny_training import loop, trainer

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.evaluation.baselines import MaskEncoder
from dmgi_lib.evaluation.earlier_stages import earlier_models, last_stage
from dmgi_lib.evaluation.table import open_table
from dmgi_lib.evaluation.table_rows import TableConfig
from dmgi_lib.recognizers import Recognizer


@pytest.fixture(scope="module")
def runs(cache, dataset, loss_net, tmp_path_factory):
    """Runs of stages 1 and 2, and the networks that came out."""
    folder = tmp_path_factory.mktemp("runs")
    first = trainer(1, cache, dataset, loss_net)
    m = first.fit(loop(folder / "mask_stage1", max_steps=2)).ema["mapping_network"]
    second = trainer(2, cache, dataset, loss_net, m)
    t = second.fit(loop(folder / "mask_stage2", max_steps=2)).ema["style_modulation"]
    return folder, m, t


def test_rows_of_earlier_stages_hold_their_networks(runs, pipe):
    folder, m, t = runs
    (m_only, m_and_t), notes = earlier_models(pipe, "mask", folder)
    assert notes == [] and (m_only.key, m_and_t.key) == ("m_only", "m_and_t")
    seen = 2 * loop(folder, max_steps=2).batch_size
    assert m_only.name == f"DMGI, M only (stage 1, {seen} samples)"
    assert m_and_t.name == f"DMGI, M + T (stage 2, {seen} samples more)"
    assert m_only.pipe.style_modulation is None and m_only.pipe.unet is pipe.unet
    assert m_only.pipe.config.num_inference_steps == pipe.config.num_inference_steps
    for found, wanted in (
        (m_only.pipe.mapping_network, m),
        (m_and_t.pipe.mapping_network, m),
        (m_and_t.pipe.style_modulation, t),
    ):
        for name, value in wanted.state_dict().items():
            assert torch.equal(found.state_dict()[name], value), name
    assert m_only.made_from and m_only.made_from in m_and_t.made_from
    assert pipe.style_modulation is not None  # the model itself is left alone


def test_without_runs_t_is_taken_out_and_the_table_says_so(pipe, tmp_path):
    (alone,), (note,) = earlier_models(pipe, "mask", tmp_path)
    assert alone.name == "DMGI, M only (T taken out)"
    assert alone.pipe.mapping_network is pipe.mapping_network
    assert alone.pipe.style_modulation is None
    assert "mask_stage1 of the training runs holds no checkpoint" in note


def test_runs_of_another_generator_or_m_are_refused(runs, cache, dataset, loss_net, tmp_path):
    folder, m, _ = runs
    other = pipeline(generator=generator(seed=9))
    _, (note,) = earlier_models(other, "mask", folder)
    assert "mask_stage1 was trained with another generator" in note
    (tmp_path / "mask_stage1").mkdir()
    checkpoint = (folder / "mask_stage1" / "checkpoint.pt").read_bytes()
    (tmp_path / "mask_stage1" / "checkpoint.pt").write_bytes(checkpoint)
    with torch.no_grad():
        m.fc.bias += 1
    second = trainer(2, cache, dataset, loss_net, m)
    second.fit(loop(tmp_path / "mask_stage2", max_steps=1))
    with torch.no_grad():
        m.fc.bias -= 1
    found, (note,) = earlier_models(pipeline(), "mask", tmp_path)
    assert [model.key for model in found] == ["m_only"]
    assert "mask_stage2 was trained with another mapping_network" in note


def test_a_folder_is_opened_with_everything_it_holds(tiny_faces, tmp_path):
    folder = tmp_path / "weights"
    whole = pipeline()
    whole.save_pretrained(folder)
    judged = tiny_judges()
    for name, part in {
        "judge_parser": judged.parser,
        "judge_attributes": judged.attributes,
        "judge_identity": judged.identity,
        "loss_net": Recognizer(channels=(4, 8, 8, 8, 8)),
        "image_encoder": tiny_clip(whole),
    }.items():
        part.save_pretrained(folder / name)
    faces = FaceDataset(tiny_faces, "test")
    parts = (folder, faces, 3, tmp_path / "rows", TableConfig(n_inversion=2, inversion_steps=1))
    table, notes = open_table(*parts, tmp_path / "no runs", {"mine": folder})
    assert [row.key for row in table.rows()] == [
        *("ground_truth", "inversion", "random", "shuffled", "controlnet", "m_only", "other_0"),
        *("exit_0", "exit_1", "exit_3"),
    ]
    assert len(table.truth.images) == 3 and table.mask_encoder is None
    assert any("no rows of the mask encoder" in note for note in notes)
    assert any("stage ?; stage 3 would" in note for note in notes)
    rows = {row.key: row for row in table.rows()}
    assert rows["exit_0"].name == "DMGI, exit step 0 of 3"
    inverted = table.finished(rows["inversion"])  # with the loss network's distance
    assert len(inverted.reading) == 2

    MaskEncoder(128, 12, 16, (4, 4, 4, 4, 4), 8).save_pretrained(folder / "mask_encoder")
    (folder / "style_modulation" / "card.md").write_text("# T\n\n- stage 3, weights\n")
    assert last_stage(folder, "mask") == 3 and last_stage(folder, "scribble") is None
    again, notes = open_table(*parts, tmp_path / "no runs")
    rows = {row.key: row for row in again.rows()}
    assert "encoder_text" in rows and not any("mask encoder" in note for note in notes)
    assert rows["exit_3"].name == "DMGI, multi-step, exit step 3 of 3"
    assert again.files.facts == table.files.facts and again.of_x == table.of_x  # old rows stay
    assert again.made_from["mask_encoder"] != table.made_from["mask_encoder"]
    assert rows["encoder"].made_from["encoder"] == again.made_from["mask_encoder"]
    assert rows["exit_0"].made_from == again.of_x | again.defaults
    (folder / "mapping_network" / "settings.json").write_text("{}")
    retrained = open_table(*parts, tmp_path / "no runs")[0]
    assert retrained.of_x != again.of_x
    kept = {row.key: row for row in retrained.rows()}["controlnet"]
    assert kept.made_from == rows["controlnet"].made_from  # it needs no M
    (folder / "controlnet" / "settings.json").write_text("{}")
    other = {row.key: row for row in open_table(*parts, tmp_path / "no runs")[0].rows()}
    assert other["controlnet"].made_from != kept.made_from
    facts = json.dumps(again.files.facts)
    assert str(tmp_path) not in facts
