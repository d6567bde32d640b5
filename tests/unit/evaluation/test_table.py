"""What captions claim; and the rows of Table 1 on tiny networks: drawn once, kept, written."""

import pytest
import torch
from PIL import Image
from table_samples import samples, tiny_table
from tiny_models import controlnet, mapping_network, pipeline, style_modulation

from data_prep.faces128.attributes import attributes
from data_prep.faces128.captions import captions
from data_prep.faces128.person import sample_identity, sample_view
from dmgi_lib.captions import claimed, claimed_attributes
from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation import table, table_rows
from dmgi_lib.evaluation.earlier_stages import EarlierModel
from dmgi_lib.evaluation.protocol import read
from dmgi_lib.evaluation.reading import COLUMNS
from dmgi_lib.evaluation.table_output import read_csv
from dmgi_lib.evaluation.table_rows import TableConfig
from dmgi_lib.style_modulation import truncate_detail

KEYS = [
    *("ground_truth", "inversion", "random", "shuffled", "controlnet", "encoder", "encoder_text"),
    *("m_only", "exit_0", "exit_1", "exit_3"),
]


@pytest.mark.parametrize(
    ("caption", "claims"),
    [
        ("a smiling old woman with gray hair.", {"Smiling", "-Male", "-Young", "Gray_Hair"}),
        ("this young man has a goatee. he wears shades", {"Male", "Young", "Goatee", "Sunglasses"}),
        ("a girl wearing dark glasses", {"-Male", "Young", "Sunglasses"}),
        ("this person has black hair", {"Black_Hair"}),
        ("a lady with dark skin and dark eyes", {"-Male", "Dark_Skin", "Brown_Eyes"}),
        ("a statue", set()),
    ],
)  # fmt: skip
def test_captions_claim_what_they_name(caption, claims):
    found = claimed_attributes(caption)
    assert {k if v else f"-{k}" for k, v in found.items()} == claims


def test_captions_of_the_face_world_claim_only_what_is_true():
    mask = torch.full((128, 128), 13).numpy()
    mask[60:70] = 4
    for seed in range(40):
        identity = sample_identity(seed)
        seen = attributes(identity, sample_view(identity, 0), mask)
        texts = captions(seen, seed)
        rows = claimed(texts)
        assert (rows >= 0).any(1).all()
        for text, row in zip(texts, rows, strict=True):
            for name, value in zip(ATTRIBUTES, row.tolist(), strict=True):
                if value >= 0:
                    assert seen[name] is bool(value), (text, name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished table, its output and its findings."""
    folder = tmp_path_factory.mktemp("table")
    m_only = pipeline(style_modulation=None, mapping_network=mapping_network(seed=11))
    models = [EarlierModel("m_only", "DMGI, M only", m_only, "")]
    made = tiny_table(folder / "rows", earlier=models)
    found = table.make(made, ["a note"], "drawn faces", folder / "t.csv")
    return made, folder, found


def test_every_row_is_drawn_and_written_with_all_columns(whole):
    _, folder, found = whole
    lines, rows = read_csv(folder / "t.csv")
    assert [row["key"] for row in rows] == KEYS
    for row in rows:
        for column in COLUMNS:
            assert row[f"{column} low"] <= row[f"{column} high"], (row["key"], column)
            if not column.startswith("FID"):  # whose interval is centred on another set's value
                assert row[f"{column} low"] <= row[column] + 1e-6
                assert row[column] <= row[f"{column} high"] + 1e-6
    by_key = {row["key"]: row for row in rows}
    assert by_key["ground_truth"]["SSIM"] == pytest.approx(1)
    assert by_key["ground_truth"]["FID (parser features)"] < 1e-6
    assert by_key["inversion"]["N"] == 2 and by_key["exit_3"]["N"] == 4
    assert by_key["controlnet"]["row"] == "ControlNet alone, 6 steps"
    timed = [key for key in KEYS if "seconds a face" in by_key[key]]
    assert timed == ["controlnet", "exit_0", "exit_1", "exit_3"]
    text = "\n".join(lines)
    for part in ("N = 4 test identities of drawn faces", "judge_parser", "bootstrap", "a note"):
        assert part in text
    for finding in found:
        assert finding.line() in lines
    assert Image.open(folder / "t.png").width > 1000


def test_goals_are_all_looked_at(whole):
    asked = [finding for finding in whole[2] if finding.bound is not None]
    names = "\n".join(f"{goal.name} {goal.sign} {goal.bound}" for goal in asked)
    for part in (
        "mIoU as a share of W+ optimisation's (N = 2) >= 0.85",
        "caption attributes as a share of ground truth's (N = 4) >= 0.85",
        "times faster than ControlNet alone >= 20.0",
        "exit step 0 ahead of ControlNet alone in mIoU by > 0.0",
        "exit step 0 ahead of ControlNet alone in SSIM by > 0.0",
        "another's caption: mIoU drops by <= 0.03",
        "another's mask: caption attributes drop by <= 0.03",
    ):
        assert part in names
    for baseline in ("ControlNet alone", "the mask encoder", "mask encoder with text optimisation"):
        ahead = [g for g in asked if g.name.startswith("DMGI ahead") and f"{baseline} in" in g.name]
        assert len(ahead) == 8, baseline


def test_a_second_run_draws_nothing_and_says_the_same(whole, monkeypatch):
    made, folder, _ = whole
    before = read_csv(folder / "t.csv")[1]

    def refused(*arguments, **options):
        raise AssertionError("a finished row was drawn again")

    for name in ("draw", "invert", "random_faces", "optimise_for_text", "read", "seconds_a_face"):
        monkeypatch.setattr(table_rows, name, refused)
    table.make(made, [], "drawn faces", folder / "again.csv")
    assert read_csv(folder / "again.csv")[1] == before


def test_a_killed_run_keeps_its_finished_rows(tmp_path, monkeypatch):
    made = tiny_table(tmp_path)
    drawn = []

    def faces(pipe, n, seed, part):
        drawn.append("random")
        if len(drawn) == 1:
            raise KeyboardInterrupt
        return torch.zeros(n, 3, 128, 128)[part]

    monkeypatch.setattr(table_rows, "random_faces", faces)
    rows = {row.key: row for row in made.rows()}
    made.finished(rows["ground_truth"])
    with pytest.raises(KeyboardInterrupt):
        made.finished(rows["random"])
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == ["ground_truth"]
    monkeypatch.setattr(table_rows, "read", lambda *a: pytest.fail("read again"))
    made.finished(rows["ground_truth"])
    monkeypatch.setattr(table_rows, "read", read)
    assert len(made.finished(rows["random"]).reading) == 4 and drawn == ["random"] * 2


def test_each_row_gets_the_inputs_that_it_says(tmp_path, monkeypatch):
    calls = {}
    images = torch.zeros(4, 3, 128, 128)

    def draw(pipe, prompts, inputs, exit_step, seed, batch_size, condition, steps):
        calls[key] = (prompts, inputs, exit_step, steps, condition, pipe)
        return images, images

    monkeypatch.setattr(table_rows, "draw", draw)
    other = pipeline(style_modulation=None)
    made = tiny_table(tmp_path, earlier=[EarlierModel("m_only", "M only", other, "")])
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
        return {row.key: made.files._path(row.key, "", row.made_from) for row in made.rows()}

    before, after = files(), files(detail_psi=1.0)
    kept = {key for key in before if before[key] == after[key]}
    assert kept == {"ground_truth", "inversion", "random", "controlnet"}
    guided = files(guidance_scale=4.0)
    changed = {key for key in before if before[key] != guided[key]}
    assert changed == {"shuffled", "controlnet", "exit_0", "exit_1", "exit_3"}
    parted = files(batch_size=2)
    assert {key for key in before if before[key] != parted[key]} == {"inversion"}


def test_codes_of_the_mask_encoder_are_truncated_too(tmp_path):
    made, drawn = tiny_table(tmp_path), {}
    G, w = made.pipe.generator, made.mask_encoder(made.truth.masks)
    for psi in (1.0, 0.5):
        made.pipe.register_to_config(detail_psi=psi)
        drawn[psi] = made.drawn_by_encoder(slice(0, 4))
        expected = G.synthesis(truncate_detail(w, G.mean_latent, psi), noise_mode="const")
        torch.testing.assert_close(drawn[psi], expected.clamp(-1, 1))
    assert not torch.allclose(drawn[1.0], drawn[0.5], atol=1e-4)


def test_exits_are_first_middle_and_last_unless_asked_otherwise(tmp_path):
    assert tiny_table(tmp_path).exits == (0, 1, 3)
    assert tiny_table(tmp_path, config=TableConfig(exit_steps=(2,))).exits == (0, 2, 3)
    with pytest.raises(ValueError, match=r"\(4,\).*0 to 3"):
        tiny_table(tmp_path, config=TableConfig(exit_steps=(4,)))
    with pytest.raises(ValueError, match="expected mask or scribble"):
        TableConfig(condition="sketch")


def test_scribbles_have_no_mask_encoder_and_other_goals(tmp_path, monkeypatch):
    pipe = pipeline(
        controlnet_scribble=controlnet(seed=8),
        mapping_network_scribble=mapping_network(seed=9),
        style_modulation_scribble=style_modulation(seed=10),
    )
    truth = samples()
    strokes = (truth.masks > 1).to(torch.uint8) * 255
    made = tiny_table(tmp_path, config=TableConfig("scribble", n_inversion=2, inversion_steps=1))
    made.pipe, made.truth = pipe, samples()
    object.__setattr__(made.truth, "scribbles", strokes)
    assert "encoder" not in [row.key for row in made.rows()]
    monkeypatch.setattr(made, "swaps", lambda own: [])
    rows = {r.key: made.finished(r) for r in made.rows() if r.key in ("controlnet", "exit_3")}
    asked = table.findings(made, rows)
    assert len(asked) == 4 and all("ControlNet" in goal.name for goal in asked)
    # masks and scribbles share a folder, yet never each other's rows
    own, other = (len(list(tmp_path.glob("exit_3-*"))) for _ in range(2))
    assert own == other == 1
    made.config = TableConfig("mask", n_inversion=2, inversion_steps=1)
    made.finished(next(r for r in made.rows() if r.key == "exit_3"))
    assert len(list(tmp_path.glob("exit_3-*"))) == 2


def test_says_which_networks_a_table_lacks(tmp_path, monkeypatch, capsys):
    pipe, made = pipeline(), []
    monkeypatch.setattr(table.DMGIPipeline, "from_pretrained", lambda folder: pipe)
    monkeypatch.setattr(table, "FaceDataset", lambda root, split: None)
    monkeypatch.setattr(table, "open_table", lambda *a: (a[4].condition, []))
    monkeypatch.setattr(table, "make", lambda made_, notes, name, out: made.append((made_, out)))
    table.main(["--data", str(tmp_path), "--out", str(tmp_path / "t.csv")])
    assert made == [("mask", tmp_path / "t.csv")]
    assert "no scribble table: this model has no controlnet_scribble" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        table.main(["--data", str(tmp_path), "--condition", "scribble"])
    assert "no scribble table" in capsys.readouterr().err
    pipe = pipeline(
        controlnet_scribble=pipe.controlnet,
        mapping_network_scribble=pipe.mapping_network,
        style_modulation_scribble=pipe.style_modulation,
    )
    table.main(["--data", str(tmp_path), "--out", str(tmp_path / "t.csv")])
    assert made[1:] == [("mask", tmp_path / "t.csv"), ("scribble", tmp_path / "t_scribble.csv")]
