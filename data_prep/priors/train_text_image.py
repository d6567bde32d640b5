"""Trains the text and image encoder: a small CLIP with its own word-level tokenizer.

    python -m data_prep.priors.train_text_image --minutes 15

Radford et al. 2021: matching captions and images get similar embeddings (InfoNCE). A few thousand
images are too few for that alone, so two heads, thrown away afterwards, help: one reads the known
attributes from both embeddings, the other reads each word back from its hidden state, which keeps
words apart for the U-Net's cross-attention. Sizes and weights are our choice (not specified in the
paper's available sources).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from data_prep.priors.card import command_line, save_whole, write_card
from data_prep.priors.command_line import loop_config, parser
from data_prep.priors.recognizer_augmentation import mirror_and_shift
from data_prep.priors.text_image_measurements import measure
from dmgi_lib.dataset import ATTRIBUTES, FaceDataset, to_float
from dmgi_lib.devices import autocast
from dmgi_lib.training.loop import LoopConfig, LoopResult, batch_indices, run

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>")  # <eos> is 3: CLIP treats id 2 in an old, odd way
MAX_LENGTH = 40  # tokens, <bos> and <eos> included


@dataclass(frozen=True)
class TextImageRecipe:
    """Architecture and training.

    Args:
        text, vision:     towers, as CLIPTextConfig and CLIPVisionConfig name things
        projection_dim:   of the common embedding
        attribute_weight: of the attribute head's loss
        word_weight:      of the word head's loss
        unknown_words:    share of words shown as <unk>, so that it gets a harmless meaning
        learning_rate:    of AdamW
    """

    text: dict[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "intermediate_size": 768,
            "attention_dropout": 0.1,
        }
    )
    vision: dict[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 192,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "intermediate_size": 768,
            "image_size": 128,
            "patch_size": 16,
            "attention_dropout": 0.1,
        }
    )
    projection_dim: int = 128
    attribute_weight: float = 1.0
    word_weight: float = 0.1
    unknown_words: float = 0.02
    learning_rate: float = 6e-4


def build_tokenizer(captions: Sequence[str]) -> PreTrainedTokenizerFast:
    """Word-level tokenizer of all words in the captions: lower case, punctuation split off.

    Only words that training shows are known, so that the warning of unknown words is truthful.
    """
    normalizer, splitter = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    words = sorted(
        {
            word
            for caption in set(captions)
            for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(caption))
        }
    )
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[(s, vocabulary[s]) for s in ("<bos>", "<eos>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=MAX_LENGTH,
    )


def build_clip(recipe: TextImageRecipe, tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """Untrained towers, drawn from the global generator."""
    text = recipe.text | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config=text, vision_config=recipe.vision, projection_dim=recipe.projection_dim
    )
    return CLIPModel(config)


class Heads(nn.Module):
    """The two heads that only training needs."""

    def __init__(self, projection_dim: int, hidden_size: int, words: int) -> None:
        super().__init__()
        self.attributes = nn.Linear(projection_dim, len(ATTRIBUTES))
        self.words = nn.Linear(hidden_size, words)


@dataclass(frozen=True)
class CaptionedPictures:
    """images (N, 3, H, W) and masks (N, H, W) uint8, attributes (N, A) int8, captions of each."""

    images: Tensor
    masks: Tensor
    attributes: Tensor
    captions: list[list[str]]

    def __len__(self) -> int:
        return len(self.images)


def training_pictures(root: Path) -> CaptionedPictures:
    """The training set, and the stylised renders where they are built.

    A statue shows no hair colour, so of stylised pictures only the captions are believed.
    """
    sets = [FaceDataset(root, "train")]
    known = [sets[0].attributes]
    if (sets[0].root / "styles" / "metadata.jsonl").is_file():
        sets.append(FaceDataset(root, "styles"))
        known.append(torch.full_like(sets[1].attributes, -1))
    return CaptionedPictures(
        torch.cat([s.images for s in sets]),
        torch.cat([s.masks for s in sets]),
        torch.cat(known),
        [captions for s in sets for captions in s.captions],
    )


def caption_ids(
    tokenizer: PreTrainedTokenizerFast, dataset: CaptionedPictures
) -> tuple[Tensor, Tensor]:
    """All captions as ids (K, 40), and offsets (N + 1,): image i has rows offsets[i]:[i + 1]."""
    captions = [caption for several in dataset.captions for caption in several]
    ids = tokenizer(
        captions,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )["input_ids"]
    return ids, torch.tensor([0, *(len(c) for c in dataset.captions)]).cumsum(0)


def make_step(
    clip: CLIPModel,
    heads: Heads,
    optimizer: torch.optim.Optimizer,
    tokenizer: PreTrainedTokenizerFast,
    dataset: CaptionedPictures,
    config: LoopConfig,
    recipe: TextImageRecipe,
) -> Callable[[int, torch.Generator], dict[str, float]]:
    """The step function for the training loop."""
    ids, offsets = caption_ids(tokenizer, dataset)
    known, wanted = (dataset.attributes >= 0).float(), (dataset.attributes == 1).float()
    parameters = [*clip.parameters(), *heads.parameters()]

    def attribute_loss(embedding: Tensor, rows: Tensor) -> Tensor:
        logits = heads.attributes(embedding * embedding.shape[1] ** 0.5).float()
        loss = F.binary_cross_entropy_with_logits(logits, wanted[rows], reduction="none")
        return (loss * known[rows]).sum() / known[rows].sum().clamp(min=1)

    def step_fn(step: int, rng: torch.Generator) -> dict[str, float]:
        rows = batch_indices(len(dataset), config.batch_size, step, config.seed)
        count = offsets[rows + 1] - offsets[rows]
        picked = ids[offsets[rows] + (torch.rand(len(rows), generator=rng) * count).long()]
        # attention is causal, so padding behind <eos> changes nothing and is cut off
        picked = picked[:, : int((picked != tokenizer.pad_token_id).sum(1).max())]
        is_word = picked >= len(SPECIAL)
        unknown = (torch.rand(picked.shape, generator=rng) < recipe.unknown_words) & is_word
        shown = torch.where(unknown, tokenizer.unk_token_id, picked)
        images, _ = mirror_and_shift(dataset.images[rows], dataset.masks[rows], rng)
        clip.train()
        with autocast("cpu"):
            text = clip.text_model(shown)
            image = clip.vision_model(to_float(images))
            text_embedding = F.normalize(clip.text_projection(text.pooler_output).float(), dim=1)
            image_embedding = F.normalize(
                clip.visual_projection(image.pooler_output).float(), dim=1
            )
            word_logits = heads.words(text.last_hidden_state[is_word & ~unknown]).float()
            attributes = attribute_loss(image_embedding, rows)
            attributes = attributes + attribute_loss(text_embedding, rows)
        similarity = clip.logit_scale.exp() * image_embedding @ text_embedding.T
        target = torch.arange(len(rows))
        contrastive = F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)
        words = F.cross_entropy(word_logits, picked[is_word & ~unknown])
        loss = 0.5 * contrastive + recipe.attribute_weight * attributes + recipe.word_weight * words
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(max=4.6)  # exp(4.6) = 100, as in CLIP
        right = (similarity.argmax(1) == target).float().mean()
        values = {"loss": loss, "contrastive": contrastive, "attributes": attributes}
        values |= {"words": words, "batch_accuracy": right}
        return {name: float(value.detach()) for name, value in values.items()}

    return step_fn


def main(arguments: list[str] | None = None, recipe: TextImageRecipe | None = None) -> LoopResult:
    """Trains or resumes, then exports tokenizer/, text_encoder/ and image_encoder/."""
    recipe = recipe or TextImageRecipe()
    cli = parser(__doc__ or "", "text_image", minutes=15, batch_size=128)
    cli.add_argument("--out", type=Path, help="folder of the three folders; default: --weights")
    given = cli.parse_args(arguments)
    config = loop_config(
        given,
        learning_rate=recipe.learning_rate,
        ema_half_life_steps=100,
        warmup_steps=100,
        cooldown=0.4,
    )
    train, test = training_pictures(given.data), FaceDataset(given.data, "test")
    tokenizer = build_tokenizer([c for several in train.captions for c in several])
    torch.manual_seed(config.seed)
    clip = build_clip(recipe, tokenizer)
    heads = Heads(recipe.projection_dim, recipe.text["hidden_size"], len(tokenizer))
    optimizer = torch.optim.AdamW(
        [*clip.parameters(), *heads.parameters()], config.learning_rate, weight_decay=0.05
    )
    step_fn = make_step(clip, heads, optimizer, tokenizer, train, config, recipe)
    modules = {"clip": clip, "heads": heads}
    result = run(config, modules, {"clip": optimizer}, step_fn, ema=("clip",))
    shipped = result.ema["clip"].half().float()  # what is shipped is what is measured
    measurements = measure(shipped, tokenizer, test)
    shipped.half()
    out = given.out or given.weights
    save_whole(out / "tokenizer", tokenizer.save_pretrained)
    facts: dict[str, Any] = {
        "command": command_line("data_prep.priors.train_text_image", arguments),
        "seed": config.seed,
        "result": result,
        "batch_size": config.batch_size,
        "training_images": len(train),
        "measurements": measurements,
    }
    for name, model, title, text in (
        (
            "text_encoder",
            shipped.text_model,
            "Text encoder of the mini world",
            f"`CLIPTextModel` that knows {len(tokenizer) - len(SPECIAL)} words and marks; "
            "the U-Net reads its last hidden states, padded to 40 tokens without attention mask.",
        ),
        (
            "image_encoder",
            shipped,
            "Text-image encoder of the mini world",
            "`CLIPModel`, both towers, for CLIP scores. Images: (B, 3, 128, 128) in [-1, 1], no "
            "other normalisation.",
        ),
    ):
        save_whole(out / name, model.save_pretrained)
        write_card(out / name, title=title, description=text, **facts)
    return result


if __name__ == "__main__":
    main()
