"""Captions as numbers: which caption belongs to which image."""

import torch

from data_prep.priors.caption_tokens import (
    build_tokenizer,
    drawn_captions,
    flat_captions,
    token_ids,
)


def test_drawn_captions_belong_to_their_images():
    captions, offsets = flat_captions([["a"], ["b", "c", "d"], ["e", "f"]])
    images = torch.tensor([0, 1, 2]).repeat(100)
    numbers = drawn_captions(offsets, images, torch.Generator().manual_seed(0))
    for image, allowed in enumerate(("a", "bcd", "ef")):
        assert {captions[n] for n in numbers[images == image].tolist()} == set(allowed)


def test_ids_are_padded_to_the_full_length():
    tokenizer = build_tokenizer(["a smiling man", "a Woman."])
    ids = token_ids(tokenizer, ["a man", "unheard of"])
    assert ids.shape == (2, 40)
    assert tokenizer.decode(ids[0]).split()[:5] == ["<bos>", "a", "man", "<eos>", "<pad>"]
    assert ids[1, 1:3].tolist() == [tokenizer.unk_token_id] * 2
