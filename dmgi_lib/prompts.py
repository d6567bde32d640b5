"""Text prompt c: tokens, warnings, word positions, and hidden states for cross-attention.

All prompts are padded to the tokenizer's full length and encoded without an attention mask, as
Stable Diffusion does, so that training and inference see the same number of tokens.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dmgi_lib.captions import BEINGS, STYLE_OF, bare


@dataclass(frozen=True)
class Tokens:
    """Tokenized prompts.

    ids: (B, L) int64, padded to the tokenizer's full length
    word_mask: (B, L) bool, True at tokens that belong to words
    words: per prompt, the words in order with their token positions; a word may repeat
    """

    ids: torch.Tensor
    word_mask: torch.Tensor
    words: list[list[tuple[str, list[int]]]]


def tokenize(tokenizer: Any, prompts: Sequence[str]) -> Tokens:
    """Tokenizes prompts and warns of what the text encoder will not understand.

    Raises:
        ValueError: a prompt that is no string, or has no words.
    """
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ValueError(
                f"prompt came as {type(prompt).__name__}; expected a string, or a list of strings."
            )
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"prompt {prompt!r} holds half a character ({error.reason} at position"
                f" {error.start}); expected whole Unicode text."
            ) from None
        if not prompt.strip():
            raise ValueError("prompt is empty; expected a description, such as 'a young woman'.")
    encoded = _encoded(tokenizer, list(prompts))
    ids = torch.tensor(encoded["input_ids"])
    special = torch.tensor(
        sorted({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} - {None})
    )
    words = [_words(encoded, i, prompt) for i, prompt in enumerate(prompts)]
    for i, prompt in enumerate(prompts):
        if not words[i]:
            raise ValueError(f"prompt {prompt!r} holds no words; expected such as 'a young woman'.")
        _warn_of_unknown(tokenizer, prompt, words[i], encoded["input_ids"][i])
        _warn_of_length(tokenizer, prompt)
    return Tokens(ids, ~torch.isin(ids, special), words)


def named_styles(
    prompts: Sequence[str], known: Collection[str]
) -> tuple[list[str | None], list[str]]:
    """The style that each prompt names, and the prompts without those words.

    "a marble statue of an old man" gives "marble" and "an old man".

    Args:
        known: styles of the model; a prompt that names another one stays as it is, with a warning.
    """
    styles: list[str | None] = []
    rest: list[str] = []
    for prompt in prompts:
        style, found = _named_style(prompt)
        if found and style not in known:
            warnings.warn(
                f"{prompt!r} asks for a style ({found[0].strip()}), and this model has none such:"
                " it draws photographs of people whatever such words say.",
                stacklevel=3,
            )
        styles.append(style if style in known else None)
        left = prompt
        if found and style in known:
            begin, end = found.span()
            being = "a person " if style in BEINGS else ""
            left = f"{prompt[:begin]}{being}{prompt[end:]}".strip(" ,.") or "a person"
        rest.append(left)
    return styles, rest


def _named_style(prompt: Any) -> tuple[str | None, re.Match[str] | None]:
    """The style that a prompt names, by the longest phrase, and where."""
    if not isinstance(prompt, str):
        return None, None  # which `tokenize` refuses
    named = [(p, style) for style, phrases in (STYLE_OF | BEINGS).items() for p in phrases]
    for phrase, style in sorted(named, key=lambda of: -len(of[0])):
        words = re.escape(bare(phrase))
        words = rf"\b(an? )?{words}\b( of)? ?"
        if found := re.search(words, prompt, re.IGNORECASE):
            return style, found
    return None, None


@torch.no_grad()
def encode_text(text_encoder: Any, ids: torch.Tensor) -> torch.Tensor:
    """(B, L) token ids → (B, L, D) last hidden states."""
    states: torch.Tensor = text_encoder(ids.to(text_encoder.device)).last_hidden_state
    return states


def encode_empty(tokenizer: Any, text_encoder: Any) -> torch.Tensor:
    """(1, L, D) hidden states of the empty prompt: the unconditional side of guidance."""
    return encode_text(text_encoder, torch.tensor(_encoded(tokenizer, [""])["input_ids"]))


def word_maps(
    a: Sequence[torch.Tensor], words: list[tuple[str, list[int]]], index: int
) -> dict[str, torch.Tensor]:
    """Attention map of each word of one prompt, for looking at.

    Args:
        a: N x (B, heads, Q_n, L) cross-attention of a step.
        words: `Tokens.words[index]`.

    Returns:
        word → (H, W) float32, averaged over heads and, at the largest block's resolution, over
        blocks (our choice, not specified in the paper's available sources). Tokens of one word, and
        repetitions of a word, are averaged.
    """
    edges = [int(maps.shape[2] ** 0.5) for maps in a]
    mean = torch.stack(
        [
            torch.nn.functional.interpolate(
                maps[index].mean(0).T.reshape(1, -1, edge, edge),
                size=(max(edges), max(edges)),
                mode="bilinear",
                align_corners=False,
            )[0]
            for maps, edge in zip(a, edges, strict=True)
        ]
    ).mean(0)  # [L, H, W]
    positions: dict[str, list[int]] = {}
    for word, tokens in words:
        positions.setdefault(word, []).extend(tokens)
    return {word: mean[tokens].mean(0) for word, tokens in positions.items()}


def _encoded(tokenizer: Any, prompts: list[str]) -> Any:
    """Prompts as token ids of the tokenizer's full length."""
    length = tokenizer.model_max_length
    return tokenizer(prompts, padding="max_length", max_length=length, truncation=True)


def _words(encoded: Any, index: int, prompt: str) -> list[tuple[str, list[int]]]:
    """Words of prompt `index` with their token positions, punctuation left out."""
    positions: dict[int, list[int]] = {}
    for token, word in enumerate(encoded.word_ids(index)):
        if word is not None:
            positions.setdefault(word, []).append(token)
    found = []
    for word, tokens in positions.items():
        span = encoded.word_to_chars(index, word)
        text = prompt[span.start : span.end].strip().lower()
        if any(character.isalnum() for character in text):
            found.append((text, tokens))
    return found


def _warn_of_unknown(
    tokenizer: Any, prompt: str, words: list[tuple[str, list[int]]], ids: list[int]
) -> None:
    unknown = [w for w, tokens in words if any(ids[t] == tokenizer.unk_token_id for t in tokens)]
    if unknown and tokenizer.unk_token_id not in (tokenizer.eos_token_id, tokenizer.pad_token_id):
        warnings.warn(
            f"unknown to this text encoder and without effect: {', '.join(dict.fromkeys(unknown))}"
            f" (in {prompt!r}). It knows the words of its training captions; try a synonym.",
            stacklevel=4,
        )


def _warn_of_length(tokenizer: Any, prompt: str) -> None:
    whole, length = tokenizer(prompt), tokenizer.model_max_length
    count = len(whole["input_ids"])
    if count > length:
        ends = int(tokenizer.eos_token_id is not None)
        span = whole.token_to_chars(length - ends)
        rest = prompt[span.start :] if span is not None else ""
        warnings.warn(
            f"prompt has {count} tokens, at most {length} are read; cut off: {rest!r}. Shorten it.",
            stacklevel=4,
        )
