import numpy as np
import pytest

pytest.importorskip("anywidget")

from dmgi_lib.masks import CLASSES, load_mask
from dmgi_lib.studio import Painter
from dmgi_lib.studio.people import SEEN, shipped_masks


@pytest.fixture(scope="module")
def people():
    return shipped_masks()


def test_each_shows_what_it_is_called(people):
    assert list(people) == list(SEEN)
    for name, part in (("hat", "hat"), ("glasses", "eye_g"), ("earrings", "ear_r")):
        assert (people[name] == CLASSES.index(part)).any()
    assert not (people["bald"] == CLASSES.index("hair")).any()
    different = {mask.tobytes() for mask in people.values()}
    assert len(different) == len(people)


def test_the_page_gets_them_in_its_size(people):
    painter = Painter(64, examples=people)
    given = np.frombuffer(painter.examples, np.uint8).reshape(len(people), 64, 64)
    assert painter.example_names == list(people)
    assert np.array_equal(given[0], load_mask(people["long hair"], 64))


def test_examples_that_are_no_masks_are_refused():
    with pytest.raises(ValueError, match="200"):
        Painter(64, examples={"x": np.full((64, 64), 200)})
