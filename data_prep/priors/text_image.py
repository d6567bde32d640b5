"""The text and image encoder: a small CLIP with its own word-level tokenizer.

    python -m data_prep.priors.trainer text_image --minutes 15

Radford et al. 2021: matching captions and images get similar embeddings (InfoNCE). A few thousand
images are too few for that alone, so two heads, thrown away afterwards, help: one reads the known
attributes from both embeddings, the other reads each word back from its hidden state, which keeps
words apart for the U-Net's cross-attention. Sizes and weights are our choice (not specified in the
paper's available sources).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast
from tyro.conf import Suppress

from data_prep.priors.caption_tokens import (
    SPECIAL,
    build_tokenizer,
    drawn_captions,
    flat_captions,
    token_ids,
)
from data_prep.priors.recipe import Recipe, Settings, Ship
from data_prep.priors.recognizer_augmentation import mirror_and_shift
from data_prep.priors.text_image_measurements import measure
from dmgi_lib.dataset import ATTRIBUTES, FaceDataset, to_float
from dmgi_lib.devices import moved, resident, taken
from dmgi_lib.training.loop import LoopResult
from dmgi_lib.training.run_files import Logged
from dmgi_lib.whole_folder import write_folder

TOWER = {
    "hidden_size": 192,
    "num_attention_heads": 6,
    "intermediate_size": 768,
    "attention_dropout": 0.1,
}


@dataclass(frozen=True)
class TextImageSettings(Settings):
    """Architecture and training.

    Args:
        text: the tower, as CLIPTextConfig names things
        vision: the tower, as CLIPVisionConfig names things
        projection_dim: of the common embedding
        attribute_weight: of the attribute head's loss
        word_weight: of the word head's loss
        unknown_words: share of words shown as <unk>, so that it gets a harmless meaning
    """

    minutes: float = 15.0
    batch_size: int = 128
    learning_rate: float = 6e-4
    ema_half_life_steps: float = 100.0
    cooldown: float = 0.4
    text: Suppress[dict[str, Any]] = field(default_factory=lambda: TOWER | {"num_hidden_layers": 4})
    vision: Suppress[dict[str, Any]] = field(
        default_factory=lambda: (
            TOWER | {"num_hidden_layers": 6, "image_size": 128, "patch_size": 16}
        )
    )
    projection_dim: Suppress[int] = 128
    attribute_weight: float = 1.0
    word_weight: float = 0.1
    unknown_words: float = 0.02


class TextImage(Recipe[TextImageSettings]):
    """The words that the denoiser understands, and the encoder behind CLIP scores."""

    name = "text_image"
    averaged = ("clip",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        settings, device = self.settings, self.device
        self.pictures = training_pictures(self.folders.data)
        captions, self.offsets = flat_captions(self.pictures.captions)
        self.tokenizer = build_tokenizer(captions)
        self.ids = token_ids(self.tokenizer, captions)
        with self.seeded():
            clip = build_clip(settings, self.tokenizer)
            heads = Heads(
                settings.projection_dim, settings.text["hidden_size"], len(self.tokenizer)
            )
        self.clip, self.heads = clip.to(device), heads.to(device)
        parameters = [*self.clip.parameters(), *self.heads.parameters()]
        optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=0.05)
        self.modules = {"clip": self.clip, "heads": self.heads}
        self.optimizers = {"clip": optimizer}
        self.known = (self.pictures.attributes >= 0).float().to(device)
        self.wanted = (self.pictures.attributes == 1).float().to(device)

    @property
    def training_images(self) -> int:
        return len(self.pictures)

    @cached_property
    def images(self) -> Tensor:
        return resident(self.pictures.images, self.device)

    @cached_property
    def masks(self) -> Tensor:
        return resident(self.pictures.masks, self.device)

    def drawn_words(self, rows: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A caption of each row: its ids, the ids that are shown, and which of them are words."""
        picked = self.ids[drawn_captions(self.offsets, rows, rng)]
        # attention is causal, so padding behind <eos> changes nothing and is cut off
        picked = picked[:, : int((picked != self.tokenizer.pad_token_id).sum(1).max())]
        is_word = picked >= len(SPECIAL)
        unknown = torch.rand(picked.shape, generator=rng) < self.settings.unknown_words
        shown = torch.where(unknown & is_word, self.tokenizer.unk_token_id, picked)
        return picked, shown, is_word & ~unknown

    def attribute_loss(self, embedding: Tensor, rows: Tensor) -> Tensor:
        logits = self.heads.attributes(embedding * embedding.shape[1] ** 0.5).float()
        wanted, known = self.wanted[rows], self.known[rows]
        loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return (loss * known).sum() / known.sum().clamp(min=1)

    def step(self, step: int, rng: torch.Generator) -> Logged:
        settings, clip, rows = self.settings, self.clip, self.rows(len(self.pictures), step)
        picked, shown, asked = self.drawn_words(rows, rng)
        asked = asked.flatten().nonzero()[:, 0]
        picked, shown, asked = (moved(x, self.device) for x in (picked, shown, asked))
        images, masks = (taken(x, rows, self.device) for x in (self.images, self.masks))
        images, _ = mirror_and_shift(images, masks, rng)
        rows = moved(rows, self.device)
        clip.train()
        with self.autocast():
            text = clip.text_model(shown)
            image = clip.vision_model(to_float(images))
            text_embedding = F.normalize(clip.text_projection(text.pooler_output).float(), dim=1)
            image_embedding = F.normalize(
                clip.visual_projection(image.pooler_output).float(), dim=1
            )
            word_logits = self.heads.words(text.last_hidden_state.flatten(0, 1)[asked]).float()
            attributes = self.attribute_loss(image_embedding, rows)
            attributes = attributes + self.attribute_loss(text_embedding, rows)
        similarity = clip.logit_scale.exp() * image_embedding @ text_embedding.T
        target = torch.arange(len(rows), device=self.device)
        contrastive = F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)
        words = F.cross_entropy(word_logits, picked.flatten()[asked])
        loss = 0.5 * contrastive + settings.attribute_weight * attributes
        loss = loss + settings.word_weight * words
        self.update(loss, clip=1.0)
        with torch.no_grad():
            clip.logit_scale.clamp_(max=4.6)  # exp(4.6) = 100, as in CLIP
        right = (similarity.argmax(1) == target).float().mean()
        values = {"loss": loss, "contrastive": contrastive, "attributes": attributes}
        values |= {"words": words, "batch_accuracy": right}
        return {name: value.detach() for name, value in values.items()}

    def export(self, result: LoopResult, ship: Ship) -> None:
        shipped = result.ema["clip"].half().float()  # what is shipped is what is measured
        measurements = measure(shipped, self.tokenizer, self.test_set)
        out = self.folders.out or self.folders.weights
        write_folder(out / "tokenizer", self.tokenizer.save_pretrained)
        ship(
            out / "text_encoder",
            shipped.text_model,
            "Text encoder of the mini world",
            f"`CLIPTextModel` that knows {len(self.tokenizer) - len(SPECIAL)} words and marks; the"
            " U-Net reads its last hidden states, padded to 40 tokens without attention mask.",
            measurements,
        )
        ship(
            out / "image_encoder",
            shipped,
            "Text-image encoder of the mini world",
            "`CLIPModel`, both towers, for CLIP scores. Images: (B, 3, 128, 128) in [-1, 1], no"
            " other normalisation.",
            measurements,
        )


def build_clip(settings: TextImageSettings, tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """Untrained towers, drawn from the global generator."""
    text = settings.text | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config=text, vision_config=settings.vision, projection_dim=settings.projection_dim
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

    Raises:
        FileNotFoundError: the folder of the stylised renders is there, but not all of its shards
    """
    sets = [FaceDataset(root, "train")]
    known = [sets[0].attributes]
    if (root.expanduser() / "styles").is_dir():
        sets.append(FaceDataset(root, "styles"))
        known.append(torch.full_like(sets[1].attributes, -1))
    return CaptionedPictures(
        torch.cat([s.images for s in sets]),
        torch.cat([s.masks for s in sets]),
        torch.cat(known),
        [captions for s in sets for captions in s.captions],
    )
