"""Grids of pictures."""

import numpy as np
import torch

from data_prep.priors.sampling import picture_grid


def test_picture_grid_places_rows_and_columns():
    rows = [torch.full((3, 3, 2, 2), 10 * r, dtype=torch.uint8) for r in range(2)]
    rows[1][2] = 99
    grid = picture_grid(rows)
    assert grid.shape == (4, 6, 3) and grid.dtype == np.uint8
    assert grid[0, 0, 0] == 0 and grid[3, 0, 0] == 10 and grid[3, 5, 2] == 99
