"""Where the small parts of a face are."""

import torch

from data_prep.priors.face_parts import region
from dmgi_lib.masks import CLASSES


def test_region_reaches_its_margin():
    mask = torch.zeros(1, 9, 9, dtype=torch.uint8)
    mask[0, 4, 4] = CLASSES.index("l_eye")
    found = region(mask, ("l_eye",), margin=2)[0, 0]
    assert found.sum() == 25 and found[2, 2] == 1 and found[1, 4] == 0
