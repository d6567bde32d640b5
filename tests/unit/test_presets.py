"""Names of presets, and their folders."""

import pytest

from dmgi_lib.presets import MINI, PAPER, PRESETS, weights_folder


def test_names_and_folders(tmp_path):
    assert PRESETS["mini"] is MINI and PRESETS["paper"] is PAPER
    assert weights_folder("mini") == MINI.folder
    assert weights_folder(str(tmp_path)) == tmp_path
    with pytest.raises(
        ValueError, match=r"'huge'; expected one of \['mini', 'mini-3d', 'paper'\], or"
    ):
        weights_folder("huge")
