"""Table 1 on tiny networks: drawn once, kept, written; and folders on disk are opened whole."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_evaluation import samples, save_folder, tiny_encoder, tiny_table
from tiny_models import controlnet, mapping_network, pipeline, style_modulation, tiny_eg3d

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.evaluation import read, rows, table
from dmgi_lib.evaluation.read import CENTRED, COLUMNS
from dmgi_lib.evaluation.report import read_csv
from dmgi_lib.evaluation.rows import OtherModel, TableConfig
from dmgi_lib.evaluation.table import last_stage, open_table, shared_hash
from dmgi_lib.presets import MINI_3D
from dmgi_lib.weight_folder import write_model_index

KEYS = [
    *("ground_truth", "inversion", "training", "random", "random_psi", "shuffled", "controlnet"),
    *("encoder", "encoder_text", "m_only", "exit_0", "exit_1", "exit_3"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished table, its output and its findings."""
    folder = tmp_path_factory.mktemp("table")
    m_only = pipeline(style_modulation=None, mapping_network=mapping_network(seed=11))
    models = [OtherModel("m_only", "DMGI, M only", m_only, "")]
    made = tiny_table(folder / "rows", others=models)
    found = table.make(made, ["a note"], "drawn faces", folder / "t.csv")
    return made, folder, found


def test_every_row_is_drawn_and_written_with_all_columns(whole):
    _, folder, found = whole
    lines, rows = read_csv(folder / "t.csv")
    assert [row["key"] for row in rows] == KEYS
    for row in rows:
        for column in COLUMNS:
            assert row[f"{column} low"] <= row[f"{column} high"], (row["key"], column)
            if column not in CENTRED:  # on another set's value
                assert row[f"{column} low"] <= row[column] + 1e-6
                assert row[column] <= row[f"{column} high"] + 1e-6
    by_key = {row["key"]: row for row in rows}
    assert by_key["ground_truth"]["SSIM"] == pytest.approx(1)
    assert by_key["ground_truth"]["FID (parser features)"] < 1e-6
    assert by_key["inversion"]["N"] == 2 and by_key["exit_3"]["N"] == 4
    assert by_key["controlnet"]["row"] == "ControlNet alone, 6 steps"
    varied = [key for key in KEYS if "diversity of 8 draws" in by_key[key]]
    assert varied == ["controlnet", "exit_0", "exit_3"]
    timed = [key for key in KEYS if "seconds a face" in by_key[key]]
    assert timed == ["controlnet", "exit_0", "exit_1", "exit_3"]
    text = "\n".join(lines)
    for part in ("N = 4 test identities of drawn faces", "judge_parser", "bootstrap", "a note"):
        assert part in text
    for finding in found:
        assert finding.line() in lines
    assert Image.open(folder / "t.png").width > 1000


def test_the_samples_of_all_rows_stand_beside_it(whole):
    _, folder, _ = whole
    samples = pd.read_parquet(folder / "t.parquet")
    counts = samples["row"].value_counts()
    assert set(counts.index) == set(KEYS) and counts["inversion"] == 2 and counts["exit_0"] == 4
    by_key = {row["key"]: row for row in read_csv(folder / "t.csv")[1]}
    for key, ssim in samples.groupby("row")["ssim"].mean().items():
        assert by_key[key]["SSIM"] == pytest.approx(ssim, rel=1e-5)


def test_goals_are_all_looked_at(whole):
    asked = [finding for finding in whole[2] if finding.bound is not None]
    names = "\n".join(f"{goal.name} {goal.sign} {goal.bound}" for goal in asked)
    for part in (
        "mIoU as a share of W+ optimisation's (N = 2) >= 0.85",
        "caption attributes as a share of the truth's (N = 4) >= 0.9",
        "FID of random faces, times that of training pictures <= 2.0",
        "ControlNet alone: edge energy as a share of the truth's (N = 4) >= 0.9",
        "times faster than ControlNet alone >= 20.0",
        "exit step 0 ahead of ControlNet alone in mIoU by > 0.0",
        "exit step 0 ahead of ControlNet alone in SSIM by > 0.0",
        "another's caption: mIoU drops by <= 0.03",
        "another's mask: caption attributes that no mask shows drop by <= 0.03",
    ):
        assert part in names
    for baseline, columns in (
        ("ControlNet alone", len(COLUMNS)),
        ("the mask encoder", 4),
        ("mask encoder with text optimisation", 4),
    ):
        ahead = [g for g in asked if g.name.startswith("DMGI ahead") and f"{baseline} in" in g.name]
        assert len(ahead) == columns, baseline


def test_a_second_run_draws_nothing_and_says_the_same(whole, monkeypatch):
    made, folder, _ = whole
    before = read_csv(folder / "t.csv")[1]

    def refused(*arguments, **options):
        raise AssertionError("a finished row was drawn or read again")

    for name in ("draw", "invert", "random_faces", "optimise_for_text"):
        monkeypatch.setattr(rows, name, refused)
    monkeypatch.setattr(read, "read", refused)
    monkeypatch.setattr(table, "in_turns", refused)
    table.make(made, [], "drawn faces", folder / "again.csv")
    assert read_csv(folder / "again.csv")[1] == before


def test_some_rows_can_be_made_without_the_others(whole, tmp_path):
    made, folder, _ = whole
    config = replace(made.config, only=("exit_0", "random"))
    few = replace(made, config=config, folder=tmp_path / "rows")
    assert table.make(few, [], "drawn faces", tmp_path / "few.csv") == []
    rows = read_csv(tmp_path / "few.csv")[1]
    assert [row["key"] for row in rows] == ["random", "exit_0"]
    every = {row["key"]: row for row in read_csv(folder / "t.csv")[1]}
    assert rows[1]["mIoU"] == every["exit_0"]["mIoU"] and "seconds a face" not in rows[1]


def test_scribbles_have_no_mask_encoder_and_other_goals(tmp_path, monkeypatch):
    pipe = pipeline(
        controlnet_scribble=controlnet(seed=8),
        mapping_network_scribble=mapping_network(seed=9),
        style_modulation_scribble=style_modulation(seed=10),
    )
    sizes = TableConfig(condition="scribble", n_inversion=2, inversion_steps=1)
    truth = samples()
    truth = replace(truth, scribbles=(truth.masks > 1).to(torch.uint8) * 255)
    made = tiny_table(tmp_path, pipe=pipe, truth=truth, config=sizes)
    assert "encoder" not in [row.key for row in made.rows()]
    monkeypatch.setattr(made, "swaps", lambda own: [])
    keys = ("controlnet", "exit_3")
    finished = {r.key: made.finished(r) for r in made.rows() if r.key in keys}
    asked = made.findings(finished)
    assert len(asked) == 4 and all("ControlNet" in goal.name for goal in asked)
    # masks and scribbles share a folder, yet never each other's rows
    assert len(list(tmp_path.glob("exit_3-*.parquet"))) == 1
    made.config = TableConfig(n_inversion=2, inversion_steps=1)
    made.finished(next(r for r in made.rows() if r.key == "exit_3"))
    assert len(list(tmp_path.glob("exit_3-*.parquet"))) == 2


def test_says_which_networks_a_table_lacks(tmp_path):
    pipeline().save_pretrained(tmp_path)
    lacks = "controlnet_scribble, mapping_network_scribble, style_modulation_scribble"
    with pytest.raises(SystemExit, match=f"no scribble table: this model has no {lacks}. Train"):
        table.run(TableConfig(), "scribble", str(tmp_path), data=tmp_path)


def test_networks_of_one_kind_of_x_leave_the_rows_of_others_alone(tmp_path):
    for part in ("unet", "mapping_network_scribble", "mask_encoder"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.safetensors").write_bytes(b"1")
    before = shared_hash(tmp_path)
    for part in ("mapping_network_scribble", "mask_encoder"):
        (tmp_path / part / "model.safetensors").write_bytes(b"2")
    (tmp_path / "model_index.json").write_text("{}")  # defaults of a call: rows name their own
    assert shared_hash(tmp_path) == before
    (tmp_path / "unet/model.safetensors").write_bytes(b"2")
    assert shared_hash(tmp_path) != before


def test_a_folder_is_opened_with_everything_it_holds(tiny_faces, loss_net, tmp_path):
    folder = save_folder(pipeline(), loss_net, tmp_path / "weights")
    faces = FaceDataset(tiny_faces, "test")
    parts = (folder, faces, 3, tmp_path / "rows", TableConfig(n_inversion=2, inversion_steps=1))
    made, notes = open_table(*parts, tmp_path / "no runs", {"mine": folder})
    assert [row.key for row in made.rows()] == [
        *("ground_truth", "inversion", "random", "random_psi", "shuffled", "controlnet", "m_only"),
        *("other_0", "exit_0", "exit_1", "exit_3"),
    ]
    assert len(made.truth.images) == 3 and made.mask_encoder is None
    assert any("no rows of the mask encoder" in note for note in notes)
    assert any("stage ?; stage 3 would" in note for note in notes)
    rows = {row.key: row for row in made.rows()}
    assert rows["exit_0"].name == "DMGI, exit step 0 of 3"
    inverted = made.finished(rows["inversion"])  # with the loss network's distance
    assert len(inverted.reading) == 2

    tiny_encoder().save_pretrained(folder / "mask_encoder")
    (folder / "style_modulation" / "card.md").write_text("# T\n\n- stage 3, weights\n")
    assert last_stage(folder, "mask") == 3 and last_stage(folder, "scribble") is None
    seen = FaceDataset(tiny_faces, "train")
    again, notes = open_table(*parts, tmp_path / "no runs", training=seen)
    assert "training" in {row.key for row in again.rows()}
    rows = {row.key: row for row in again.rows()}
    assert "encoder_text" in rows and not any("mask encoder" in note for note in notes)
    assert rows["exit_3"].name == "DMGI, multi-step, exit step 3 of 3"
    assert again.facts == made.facts
    old = {row.key: row for row in made.rows()}
    assert rows["exit_0"].made_from == old["exit_0"].made_from  # old rows stay
    assert again.made_from["mask_encoder"] != made.made_from["mask_encoder"]
    assert rows["encoder"].made_from["encoder"] == again.made_from["mask_encoder"]
    (folder / "mapping_network" / "settings.json").write_text("{}")
    retrained = open_table(*parts, tmp_path / "no runs")[0]
    anew = {row.key: row for row in retrained.rows()}
    assert anew["exit_0"].made_from != rows["exit_0"].made_from
    kept = anew["controlnet"]
    assert kept.made_from == rows["controlnet"].made_from  # it needs no M
    (folder / "controlnet" / "settings.json").write_text("{}")
    other = {row.key: row for row in open_table(*parts, tmp_path / "no runs")[0].rows()}
    assert other["controlnet"].made_from != kept.made_from
    facts = json.dumps(again.facts)
    assert str(tmp_path) not in facts
    parts_of_heads = {
        "mapping_network": mapping_network(num_ws=6),
        "style_modulation": style_modulation(num_ws=6),
        "generator": tiny_eg3d(w_dim=16),
    }
    for name, network in parts_of_heads.items():
        network.save_pretrained(folder / "3d" / name)
    assert write_model_index(folder / "3d")["detail_psi"] == MINI_3D.detail_psi
    with_heads = {row.key: row for row in open_table(*parts, tmp_path / "no runs")[0].rows()}
    assert with_heads["heads"].name == "DMGI-3D, exit step 3 of 3"
    assert with_heads["random"].made_from == anew["random"].made_from
