import pytest
import torch
from tiny_evaluation import tiny_judges
from tiny_models import generator, pipeline

from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.editing import EditDirections
from dmgi_lib.evaluation.edits import Readings, compared, measure
from dmgi_lib.training.edit_directions import other_attributes

SMILE, HAT = (ATTRIBUTES.index(name) for name in ("Smiling", "Wearing_Hat"))
READS = torch.ones(len(ATTRIBUTES), dtype=torch.bool)


def readings(smiles, hats, yaw, identity=(1.0, 0.0)) -> Readings:
    attributes = torch.zeros(len(smiles), len(ATTRIBUTES), dtype=torch.bool)
    attributes[:, SMILE], attributes[:, HAT] = torch.tensor(smiles), torch.tensor(hats)
    return Readings(attributes, torch.tensor([identity] * len(smiles)), torch.tensor(yaw))


BEFORE = readings([True, False, False, False], [False] * 4, [0.0, 0.0, 0.0, 0.0])
AFTER = readings([True, True, True, False], [True, False, False, False], [20.0, 5.0, 12.0, -30.0],
                 (0.6, 0.8))  # fmt: skip


def test_shares_are_of_the_faces_that_were_not_so():
    row = compared("smile", 1, BEFORE, AFTER, READS)
    assert row["faces"] == 3 and row["asked change"] == pytest.approx(2 / 3)
    others = len(other_attributes("smile", list(range(len(ATTRIBUTES)))))
    assert row["others changed"] == pytest.approx(1 / 4 / others)
    assert row["identity"] == pytest.approx(0.6) and row["turned"] == pytest.approx(1.75)
    less = compared("smile", -1, BEFORE, AFTER, READS)
    assert less["faces"] == 1 and less["asked change"] == 0


def test_attributes_that_the_judge_does_not_read_do_not_count():
    reads = READS.clone()
    reads[HAT] = False
    assert compared("smile", 1, BEFORE, AFTER, reads)["others changed"] == 0


@pytest.mark.parametrize(("strength", "share"), [(1, 0.5), (-1, 0.25)])
def test_a_turn_counts_from_ten_degrees_in_its_direction(strength, share):
    row = compared("yaw", strength, BEFORE, AFTER, READS)
    assert row["faces"] == 4 and row["asked change"] == share


def test_each_known_direction_is_measured_both_ways():
    directions = EditDirections(("smile", "nose", "yaw"), 12, 16)
    pipe = pipeline(edit_directions=directions, generator=generator())
    codes = torch.randn(3, 12, 16, generator=torch.Generator().manual_seed(0))
    table = measure(pipe, codes, tiny_judges(), lambda features: features.mean((1, 2, 3)))
    assert table[["direction", "strength"]].values.tolist() == [
        ["smile", 1], ["smile", -1], ["yaw", 1], ["yaw", -1],
    ]  # fmt: skip
    assert (table["others changed"] == 0).all() and (table["turned"] == 0).all()
    assert table["identity"].values == pytest.approx(1.0, abs=1e-5)
    assert (table["faces"].iloc[2:] == 3).all()
