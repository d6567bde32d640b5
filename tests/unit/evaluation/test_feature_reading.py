"""Principal components and probes find what was put in, and nothing that was not."""

import pytest
import torch

from dmgi_lib.evaluation.feature_reading import (
    cell_classes,
    explained_variance,
    principal_components,
    probe,
    read_classes,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_first_component_is_the_direction_of_most_variance():
    hidden = torch.randn(4, 1, 8, 8, generator=rng())
    direction = torch.tensor([3.0, -1.0, 0.5])[:, None, None]
    features = hidden * direction + 0.05 * torch.randn(4, 3, 8, 8, generator=rng(1))
    found = principal_components(features, 2)
    assert found.shape == (4, 8, 8, 2) and found.min() >= 0 and found.max() <= 1
    pair = torch.stack([found[..., 0].flatten(), hidden.flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.97  # the largest loading is positive


def test_a_cell_has_its_most_frequent_class():
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[0, :4, :4] = 13
    mask[0, 0, 0] = 1
    mask[0, 4:, 4:] = torch.tensor([[17] * 4, [17] * 4, [17] * 4, [1] * 4])
    assert cell_classes(mask, 2).tolist() == [[[13, 0], [0, 17]]]


def test_probe_reads_what_is_linear_in_the_features():
    x = torch.randn(60, 5, generator=rng())
    y = x @ torch.randn(5, 2, generator=rng(1)) + 4
    assert explained_variance(x, y) > 0.95
    assert explained_variance(x, y, strength=10.0) < 0.3  # the penalty draws to the mean
    assert read_classes(x, (x[:, 0] > 0).long()) > 0.9


def test_probe_never_sees_the_sample_that_it_reads():
    """More features than samples fit noise perfectly, but read nothing of the fold left out."""
    x = torch.randn(40, 200, generator=rng())
    y = torch.randn(40, 3, generator=rng(1))
    assert explained_variance(x, y) < 0.1
    changed = y.clone()
    changed[0] += 1000
    before, after = probe(x, y), probe(x, changed)
    assert torch.equal(before[[0, 5, 35]], after[[0, 5, 35]])  # the fold of sample 0
    assert not torch.equal(before[1], after[1])


def test_places_of_one_sample_stay_in_one_fold():
    x = torch.randn(10, 6, 3, generator=rng())
    assert probe(x, x[..., :1]).shape == (10, 6, 1)
    with pytest.raises(ValueError, match="4 samples"):
        probe(x[:4], x[:4])
