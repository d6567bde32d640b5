"""Networks of stages 1 and 2 for Table 1: found in runs, and refused if they are of others."""

import pytest
import torch
from tiny_models import generator, pipeline
from tiny_training import loop, trainer

from dmgi_lib.evaluation.earlier_stages import earlier_models


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
