"""Files are written whole or not at all."""

import pytest

from dmgi_lib.files import write_whole


def test_a_failed_write_leaves_the_old_file_whole(tmp_path):
    target = tmp_path / "weights.bin"
    target.write_bytes(b"old")

    def write(path):
        path.write_bytes(b"ne")
        raise OSError

    with pytest.raises(OSError):
        write_whole(target, write)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
