"""What the cards of the recognition networks state."""

import pytest
import torch

from data_prep.priors.recognizer_measurements import identity_measurements, true_codes
from dmgi_lib.dataset import FaceDataset


def test_identity_measurements_of_perfect_and_of_blind_codes(tiny_faces):
    faces = FaceDataset(tiny_faces, "train")  # its two second views have shapes of their own
    true = true_codes(faces)
    true[-2:] = true[:2]
    perfect = identity_measurements(true, faces)
    assert perfect["same pairs"] == 2
    assert perfect["verification AUC"] == 1.0
    assert perfect["cosine of same pairs"] == pytest.approx(1.0)
    assert perfect["variance explained, skin tone"] > 0.5
    blind = identity_measurements(torch.ones_like(true), faces)
    assert blind["verification AUC"] == pytest.approx(0.5)
    assert identity_measurements(true_codes(faces), faces)[
        "variance explained, head shape"
    ] == pytest.approx(1.0)
