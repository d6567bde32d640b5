"""Rows of Table 1 on tiny networks: each draws what it says, for the samples that it says."""

import pytest
import torch
from tiny_devices import fake_cuda, on_cuda
from tiny_evaluation import samples, tiny_table
from tiny_models import generator, mapping_network, pipeline, tiny_eg3d
from tiny_training import loop, trainer

from dmgi_lib.evaluation import rows as table_rows
from dmgi_lib.evaluation.draw import judged_size, place
from dmgi_lib.evaluation.rows import OtherModel, Row, TableConfig, earlier_models, swap_rows
from dmgi_lib.evaluation.samples import exchanged
from dmgi_lib.generators.eg3d.cameras import look_at
from dmgi_lib.style_modulation import truncate_detail


def test_each_row_gets_the_inputs_that_it_says(tmp_path, monkeypatch):
    calls = {}
    images = torch.zeros(4, 3, 128, 128)

    def draw(pipe, prompts, inputs, exit_step, seed, batch_size, condition, steps, cameras):
        assert cameras is None  # of pictures
        calls[key] = (prompts, inputs, exit_step, steps, condition, pipe)
        return images, images

    monkeypatch.setattr(table_rows, "draw", draw)
    other = pipeline(style_modulation=None)
    made = tiny_table(tmp_path, others=[OtherModel("m_only", "M only", other, "")])
    for row in made.rows():
        key = row.key
        if key in ("shuffled", "controlnet", "m_only") or key.startswith("exit"):
            row.draw(slice(0, 4))
    truth = made.truth
    for key, (prompts, inputs, exit_step, steps, condition, pipe) in calls.items():
        assert condition == "mask" and steps == (6 if key == "controlnet" else None)
        own = prompts == truth.prompts and torch.equal(inputs, truth.masks)
        assert own is (key != "shuffled")
        assert pipe is (other if key == "m_only" else made.pipe)
        assert exit_step == {"exit_0": 0, "exit_1": 1, "exit_3": 3}.get(key, -1)
    prompts, inputs = calls["shuffled"][:2]
    for i in range(4):  # caption and mask of one and the same other person
        j = truth.prompts.index(prompts[i])
        assert j != i and torch.equal(inputs[i], truth.masks[j])


def test_heads_are_seen_by_the_samples_own_cameras(tmp_path):
    G, truth = tiny_eg3d(w_dim=16), samples()
    yaws = [30.0, -30.0, 0.0, 10.0]
    for record, c in zip(truth.records, look_at(yaws, 0.0), strict=True):
        record["camera"] = c.tolist()
    networks: dict = {"mapping_network": mapping_network(num_ws=6), "style_modulation": None}
    heads = pipeline(generator=G, **networks)
    made = tiny_table(tmp_path, others=[OtherModel("heads", "DMGI-3D", heads, "")], truth=truth)
    row = next(row for row in made.rows() if row.key == "heads")
    starts = [torch.Generator().manual_seed(i) for i in (1, 2)]
    inputs = {"mask": list(truth.masks[1:3]), "generator": starts, "output_type": "pt"}
    seen = heads(truth.prompts[1:3], camera=look_at(yaws[1:3], 0.0), **inputs)
    torch.testing.assert_close(row.draw(slice(1, 3)), judged_size(seen.images))


def test_parts_of_a_row_are_parts_of_what_is_drawn_at_once(tmp_path):
    made = tiny_table(tmp_path)
    for row in made.rows():
        if row.key in ("ground_truth", "random", "shuffled", "controlnet", "encoder", "exit_3"):
            whole = row.draw(slice(0, 4))
            parts = [row.draw(slice(0, 3)), row.draw(slice(3, 4))]
            torch.testing.assert_close(torch.cat(parts), whole, msg=row.key)


def test_defaults_of_a_call_make_anew_only_the_rows_that_they_change(tmp_path):
    def files(batch_size=25, **changes):
        sizes = {"n_inversion": 2, "inversion_steps": 2, "batch_size": batch_size}
        made = tiny_table(tmp_path, config=TableConfig(**sizes))
        made.pipe.register_to_config(**changes)
        return {row.key: place(tmp_path, row.key, row.made_from) for row in made.rows()}

    before, after = files(), files(detail_psi=1.0)
    kept = {key for key in before if before[key] == after[key]}
    kept_ones = {"ground_truth", "inversion", "training", "random", "random_psi", "controlnet"}
    assert kept == kept_ones
    guided = files(guidance_scale=4.0)
    changed = {key for key in before if before[key] != guided[key]}
    assert changed == {"shuffled", "controlnet", "exit_0", "exit_1", "exit_3"}
    alone = files(guide_condition=False)
    assert {key for key in guided if guided[key] != alone[key]} == changed
    parted = files(batch_size=2)
    assert {key for key in before if before[key] != parted[key]} == {"inversion"}


def test_codes_of_the_mask_encoder_are_truncated_too(tmp_path):
    made, drawn = tiny_table(tmp_path), {}
    G, w = made.pipe.generator, made.mask_encoder(made.truth.masks)
    for psi in (1.0, 0.5):
        made.pipe.register_to_config(detail_psi=psi)
        encoded = next(row for row in made.rows() if row.key == "encoder")
        drawn[psi] = encoded.draw(slice(0, 4))
        expected = G.synthesis(truncate_detail(w, G.mean_latent, psi), noise_mode="const")
        torch.testing.assert_close(drawn[psi], expected.clamp(-1, 1))
    assert not torch.allclose(drawn[1.0], drawn[0.5], atol=1e-4)


def test_exits_are_first_middle_and_last_unless_asked_otherwise(tmp_path):
    assert tiny_table(tmp_path).exits == (0, 1, 3)
    assert tiny_table(tmp_path, config=TableConfig(exit_steps=(2,))).exits == (0, 2, 3)
    with pytest.raises(ValueError, match=r"\(4,\).*0 to 3"):
        tiny_table(tmp_path, config=TableConfig(exit_steps=(4,)))
    with pytest.raises(ValueError, match="expected one of"):
        TableConfig(condition="sketch")


def test_a_new_row_is_one_function(tmp_path, monkeypatch):
    def grey(scene):
        def draw(part):
            return torch.zeros_like(scene.truth.images[part])

        yield Row("grey", "a grey picture", draw, {}, scene.truth)

    monkeypatch.setattr(table_rows, "ROWS", (*table_rows.ROWS, grey))
    made = tiny_table(tmp_path)
    last = list(made.rows())[-1]
    assert last.key == "grey" and len(made.finished(last).reading) == 4


def test_swaps_are_drawn_for_one_and_read_against_the_other(tmp_path, monkeypatch):
    made, calls = tiny_table(tmp_path), []

    def draw(pipe, prompts, inputs, exit_step, *rest):
        calls.append((prompts, inputs, exit_step))
        return made.truth.images, None

    monkeypatch.setattr(table_rows, "draw", draw)
    found = list(swap_rows(made))
    assert [row.key for row in found] == ["swap_both", "swap_text", "swap_mask"]
    mixed, truth = exchanged(made.truth, 0), made.truth
    plan = [(truth, mixed["both"]), (mixed["text"],) * 2, (mixed["mask"],) * 2]
    for row, (drawn_for, read_for) in zip(found, plan, strict=True):
        row.draw(slice(0, 4))
        prompts, masks, step = calls[-1]
        assert step == -1 and prompts == drawn_for.prompts and torch.equal(masks, drawn_for.masks)
        assert row.against.prompts == read_for.prompts
        assert torch.equal(row.against.masks, read_for.masks)


@pytest.mark.parametrize("key", ["inversion", "encoder", "encoder_text"])
def test_rows_without_diffusion_are_drawn_on_a_gpu(tmp_path, monkeypatch, key):
    made = tiny_table(tmp_path)
    row = next(row for row in made.rows() if row.key == key)

    def similarity(clip, tokenizer, prompts):
        return lambda images: images.mean((1, 2, 3))

    monkeypatch.setattr(table_rows, "text_similarity", similarity)
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
    with fake_cuda(), torch.no_grad():  # autograd of a CPU build knows no CUDA
        for network in (made.pipe.generator, made.mask_encoder):
            on_cuda(network)
        images = row.draw(slice(0, 2))
    assert images.device.type == "cpu" and images.shape == (2, 3, 128, 128)


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
