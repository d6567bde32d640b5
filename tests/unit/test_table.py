"""Table 1 of the mini world on tiny networks, and what captions claim."""

import csv
from dataclasses import replace

import pytest
import torch
from PIL import Image
from test_measure import ground_truth
from tiny_models import mapping_network, pipeline
from transformers import CLIPConfig, CLIPModel

from data_prep.faces128.attributes import attributes
from data_prep.faces128.captions import captions
from data_prep.faces128.person import sample_identity, sample_view
from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation import judges
from dmgi_lib.evaluation.baselines import MaskEncoder
from dmgi_lib.evaluation.caption_attributes import claimed, claimed_attributes
from dmgi_lib.evaluation.table import Table, TableConfig, swaps
from dmgi_lib.evaluation.table_output import HEADER, draw_figure, header_lines


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
def table():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    pipe = pipeline()
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    tower |= {"num_attention_heads": 2}
    text = {"vocab_size": len(pipe.tokenizer), "max_position_embeddings": 12, "eos_token_id": 2}
    vision = tower | {"image_size": 128, "patch_size": 64}
    clip = CLIPModel(CLIPConfig(text_config=tower | text, vision_config=vision, projection_dim=8))
    judged = judges.Judges(
        judges.ParserJudge(channels=(4, 4, 4, 4, 4)).eval(),
        judges.AttributeJudge(channels=(4, 4, 4, 4)).eval(),
        judges.IdentityJudge(channels=(4, 4, 4, 4)).eval(),
    )
    truth = ground_truth(4)
    records = [r | {"attributes": {"Male": i % 2 == 0}} for i, r in enumerate(truth.records)]
    prompts = [f"a {word} woman" for word in ("young", "old", "smiling", "red")]
    truth = replace(truth, records=records, prompts=prompts)
    config = TableConfig(4, exit_steps=(0, -1), n_inversion=2, inversion_steps=2, text_steps=2)
    encoder = MaskEncoder(128, 12, 16, channels=(4, 4, 4, 4, 4), width=8)
    m_only = pipeline(style_modulation=None, mapping_network=mapping_network(seed=11))
    return Table(pipe, truth, judged, clip.eval(), config, encoder, {"another M": m_only})


def test_every_row_is_drawn_and_read(table, tmp_path):
    found, strips = {}, {}
    for row in table.rows():
        assert row.images.shape[1:] == (3, 128, 128)
        found[row.name], strips[row.name] = table.read(row), row.images[:3]
    names = " ".join(found)
    for part in (
        *("ceiling of the judges", "ceiling of G", "random", "others' inputs", "ControlNet"),
        *("mask encoder + text", "M only", "another M", "exit step 0", "exit step 3"),
    ):
        assert part in names
    assert found["W+ optimisation (ceiling of G)"]["N"] == 2
    first = found["ground truth (ceiling of the judges)"]
    assert first["SSIM"] == pytest.approx(1) and first["FID (parser features)"] < 1e-6
    for values in found.values():
        for column in HEADER:
            assert values[column] == values[column]  # not NaN
            if f"{column} low" in values:
                assert values[f"{column} low"] <= values[column] + 1e-6
    assert table.pipe.style_modulation is not None  # put back
    draw_figure(found, strips, table.truth, tmp_path / "table.png")
    assert Image.open(tmp_path / "table.png").width > 1000
    assert any("N = 4" in line for line in header_lines(table.truth, "mask", "x"))


def test_swaps_exchange_only_text_or_only_masks(table, monkeypatch):
    seen = []

    def drawn(pipe, step, truth):
        seen.append((truth.prompts, truth.masks))
        return table.truth.images, None

    monkeypatch.setattr(table, "drawn", drawn)
    result = swaps(table)
    (own_text, own_masks), (other_text, same_masks), (same_text, other_masks) = seen
    assert own_text == same_text and torch.equal(own_masks, same_masks)
    assert sorted(other_text) == sorted(own_text) and other_text != own_text
    assert not torch.equal(other_masks, own_masks)
    assert other_text[0] == own_text[2] and other_text[1] == own_text[3]  # within one sex
    assert len(result) == 4


def test_rows_are_written_as_csv(table, tmp_path, monkeypatch):
    from dmgi_lib.evaluation import table as module

    row = next(iter(table.rows()))
    monkeypatch.setattr(module.Table, "rows", lambda self: iter([row]))
    monkeypatch.setattr(module.DMGIPipeline, "from_pretrained", lambda name: table.pipe)
    monkeypatch.setattr(module, "load_judges", lambda folder: table.judges)
    monkeypatch.setattr(module.CLIPModel, "from_pretrained", lambda *a, **k: table.clip)
    monkeypatch.setattr(module.GroundTruth, "read", lambda data, n: table.truth)
    out = tmp_path / "t.csv"
    module.main(["--out", str(out), "--no-swaps", "--n", "4"])
    lines = out.read_text().splitlines()
    notes = [line for line in lines if line.startswith("#")]
    assert any("extractor" in n or "judge_parser" in n for n in notes)
    (read,) = csv.DictReader(lines[len(notes) :])
    assert read["row"].startswith("ground truth") and float(read["SSIM"]) == pytest.approx(1)
    assert read["SSIM low"] and not read["FID (parser features) low"]
