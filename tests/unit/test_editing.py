import json

import pytest
import torch
from tiny_models import pipeline

from dmgi_lib import DMGIPipeline
from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.editing import EDITS, ROWS, EditDirections, mixed
from dmgi_lib.weight_folder import write_model_index


def directions(names=("age", "smile")) -> EditDirections:
    module = EditDirections(names, 12, 16)
    module.directions.data.normal_(generator=torch.Generator().manual_seed(1))
    return module


def codes(n: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 12, 16, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def pipe() -> DMGIPipeline:
    torch.set_num_threads(1)
    return pipeline(edit_directions=directions())


def test_an_edit_adds_each_direction_by_its_strength(pipe):
    d, w = pipe.edit_directions.directions, codes()
    out = pipe.edit(w, smile=1, age=-0.5, output_type="pt")
    assert torch.allclose(out.latents, w + d[1] - 0.5 * d[0], atol=1e-6)
    drawn = pipe.generator.synthesis(out.latents, noise_mode="const")
    assert torch.equal(out.images, drawn)
    assert not torch.allclose(drawn, pipe.generator.synthesis(w, noise_mode="const"))


def test_nothing_asked_changes_nothing_and_the_codes_given_stay(pipe):
    w = codes()
    before = w.clone()
    assert torch.equal(pipe.edit(w).latents, w)
    assert torch.equal(pipe.edit(w, smile=0.0).latents, w)
    pipe.edit(w, smile=2)
    assert torch.equal(w, before)
    assert [image.size for image in pipe.edit(w).images] == [(128, 128)] * 2


@pytest.mark.parametrize(
    ("w", "strengths", "word"),
    [
        (codes(), {"smlie": 1}, "unknown edits \\['smlie'\\] came; .*\\['age', 'smile'\\]"),
        (codes(), {"smile": 7}, "smile came as 7; expected a number from -5 to 5"),
        (codes(), {"smile": float("nan")}, "smile came as nan"),
        (codes(), {"smile": True}, "smile came as True"),
        (codes()[0], {"smile": 1}, r"latents\[None\]"),
        (codes()[:, :5], {"smile": 1}, r"\(B, 12, 16\)"),
        (codes() * float("inf"), {"smile": 1}, "NaN or infinite"),
        (codes().long(), {"smile": 1}, "int64"),
        ("face.png", {"smile": 1}, "came as a str"),
    ],
)
def test_wrong_edits_are_refused(pipe, w, strengths, word):
    with pytest.raises(ValueError, match=word):
        pipe.edit(w, **strengths)


@pytest.mark.parametrize("rows", [*ROWS, [0, 11], ()])
def test_mixing_takes_rows_of_the_other(pipe, rows):
    a, b = codes(seed=0), codes(seed=1)
    out = pipe.mix(a, b, rows, output_type="pt").latents
    taken = list(range(12))[ROWS[rows]] if isinstance(rows, str) else list(rows)
    kept = [row for row in range(12) if row not in taken]
    assert torch.equal(out[:, taken], b[:, taken]) and torch.equal(out[:, kept], a[:, kept])
    assert torch.equal(mixed(a, b[:1], rows)[:, taken], b[:1].expand(2, -1, -1)[:, taken])


def test_the_words_of_rows_share_them_all():
    assert sorted(row for part in ROWS.values() for row in range(12)[part]) == list(range(12))


@pytest.mark.parametrize(
    ("b", "rows", "word"),
    [
        (codes(), "corse", "rows came as 'corse'; expected one of \\['coarse'"),
        (codes(), [12], "a row came as 12; expected a whole number from 0 to 11"),
        (codes(3), "fine", "3 codes for 2"),
        (codes()[..., :8], "fine", r"latents_b came as \(2, 12, 8\)"),
    ],
)
def test_wrong_mixtures_are_refused(pipe, b, rows, word):
    with pytest.raises(ValueError, match=word):
        pipe.mix(codes(), b, rows)


def test_a_model_without_directions_says_how_to_find_them():
    with pytest.raises(ValueError, match="dmgi_lib.training.edit_directions"):
        pipeline().edit(codes(), smile=1)
    with pytest.raises(ValueError, match="no generator"):
        pipeline(generator=None).mix(codes(), codes())


def test_directions_are_saved_with_the_pipeline(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "new")
    again = DMGIPipeline.from_pretrained(tmp_path / "new")
    assert again.edit_directions.names == ("age", "smile")
    assert torch.equal(again.edit_directions.directions, pipe.edit_directions.directions)
    assert torch.equal(again.edit(codes(), age=1).latents, pipe.edit(codes(), age=1).latents)
    assert write_model_index(tmp_path / "new")["edit_directions"] == ["dmgi_lib", "EditDirections"]


def test_folders_from_before_there_were_directions_load(tmp_path):
    pipeline().save_pretrained(tmp_path / "old")
    index = tmp_path / "old" / "model_index.json"
    entries = json.loads(index.read_text())
    del entries["edit_directions"]
    index.write_text(json.dumps(entries))
    assert DMGIPipeline.from_pretrained(tmp_path / "old").edit_directions is None


def test_edits_name_known_attributes():
    for edit in EDITS.values():
        claims = [claim[0] for claim in (edit.more, edit.less) if claim]
        assert {*claims, *edit.kin} <= {*ATTRIBUTES}
