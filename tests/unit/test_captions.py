"""What captions claim."""

import pytest
import torch

from data_prep.faces128.attributes import attributes
from data_prep.faces128.captions import captions
from data_prep.faces128.person import sample_identity, sample_view
from dmgi_lib.captions import claimed, claimed_attributes
from dmgi_lib.dataset import ATTRIBUTES


@pytest.mark.parametrize(
    ("caption", "claims"),
    [
        ("a smiling old woman with gray hair.", {"Smiling", "-Male", "-Young", "Gray_Hair"}),
        ("this young man has a goatee. he wears shades", {"Male", "Young", "Goatee", "Sunglasses"}),
        ("a young lady wearing dark glasses", {"-Male", "Young", "Sunglasses"}),
        ("a girl with bangs", {"-Male", "Young", "Bangs"}),  # of earlier captions
        ("a blonde woman in a red shirt", {"-Male", "Blond_Hair", "Cloth_Red", "Shirt"}),
        ("a man wears a grey striped hoodie", {"Male", "Cloth_Gray", "Striped", "Hoodie"}),
        ("a bald bearded man in a tee", {"Male", "Bald", "Full_Beard", "Shirt", "-Collar"}),
        ("the guy wears a green knit cap", {"Male", "Hat_Green", "Beanie", "Wearing_Hat"}),
        ("blue clothes and a blue collared shirt", {"Cloth_Blue", "Collar"}),
        ("gold rimmed glasses", {"Eyeglasses", "Golden_Frames"}),
        ("white hair before a violet wall", {"White_Hair", "Backdrop_Purple", "Plain_Backdrop"}),
        ("a dark backdrop", {"Dark_Backdrop", "Plain_Backdrop"}),
        ("in a room with bookshelves and a lamp", {"Room", "Books", "Lamp"}),
        ("trees behind her, in a city at night", {"Garden", "Street", "Night"}),
        ("this person has black hair", {"Black_Hair"}),
        ("a lady with dark skin and dark eyes", {"-Male", "Dark_Skin", "Brown_Eyes"}),
        ("a statue", set()),
    ],
)  # fmt: skip
def test_captions_claim_what_they_name(caption, claims):
    found = claimed_attributes(caption)
    assert {k if v else f"-{k}" for k, v in found.items()} == claims


def test_captions_of_the_face_world_claim_only_what_is_true():
    mask = torch.full((128, 128), 13).numpy()
    mask[60:70], mask[100:] = 4, 16
    image = torch.randint(256, (128, 128, 3), dtype=torch.uint8).numpy()
    for seed in range(40):
        identity = sample_identity(seed)
        seen = attributes(identity, sample_view(identity, 0), mask, image)
        texts = captions(seen, seed)
        rows = claimed(texts)
        assert (rows >= 0).any(1).all()
        for text, row in zip(texts, rows, strict=True):
            for name, value in zip(ATTRIBUTES, row.tolist(), strict=True):
                if value >= 0:
                    assert seen[name] is bool(value), (text, name)
