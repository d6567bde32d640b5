"""Captions as token ids: a word-level tokenizer, and one caption drawn for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>")  # <eos> is 3: CLIP treats id 2 in an old, odd way
MAX_LENGTH = 40  # tokens, <bos> and <eos> included


def build_tokenizer(captions: Sequence[str]) -> PreTrainedTokenizerFast:
    """Word-level tokenizer of all words in the captions: lower case, punctuation split off.

    Only words that training shows are known, so that the warning of unknown words is truthful.
    """
    normalizer, splitter = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    normal = {normalizer.normalize_str(caption) for caption in captions}
    words = sorted({word for text in normal for word, _ in splitter.pre_tokenize_str(text)})
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[(s, vocabulary[s]) for s in ("<bos>", "<eos>")]
    )
    names = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_LENGTH, **names)


def token_ids(tokenizer: PreTrainedTokenizerFast, captions: Sequence[str]) -> Tensor:
    """(K, L) int64, padded to the tokenizer's full length L."""
    length = tokenizer.model_max_length
    pad = {"padding": "max_length", "max_length": length, "truncation": True}
    return tokenizer(list(captions), return_tensors="pt", **pad)["input_ids"]


def flat_captions(captions: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """All captions in a row, and offsets (N + 1,): those of image i end before offsets[i + 1]."""
    offsets = torch.tensor([0, *(len(several) for several in captions)]).cumsum(0)
    return [caption for several in captions for caption in several], offsets


def drawn_captions(offsets: Tensor, images: Tensor, rng: torch.Generator) -> Tensor:
    """The number of one random caption of each image: (B,) in [0, N) -> (B,)."""
    first, count = offsets[images], offsets[images + 1] - offsets[images]
    return first + (torch.rand(len(images), generator=rng) * count).long()
