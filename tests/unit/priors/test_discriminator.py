"""What D sees of a batch."""

import pytest
import torch

from data_prep.priors.discriminator import minibatch_stddev


def test_minibatch_stddev_by_hand():
    x = torch.tensor([0.0, 10.0, 2.0, 10.0]).view(4, 1, 1, 1)
    # groups of two: samples 0 and 2 (std 1), samples 1 and 3 (std 0)
    out = minibatch_stddev(x, group_size=2)[:, 1].flatten()
    torch.testing.assert_close(out, torch.tensor([1.0, 1e-4, 1.0, 1e-4]))
    with pytest.raises(ValueError, match="a batch of 6 came"):
        minibatch_stddev(torch.zeros(6, 1, 1, 1), group_size=4)
