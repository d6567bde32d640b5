"""The text and image encoder: a small CLIP with its own word-level tokenizer.

    python -m data_prep.priors.trainer text_image --minutes 15

Radford et al. 2021: matching captions and images get similar embeddings (InfoNCE). A few thousand
images are too few for that alone, so two heads, thrown away afterwards, help: one reads the known
attributes from both embeddings, the other reads each word back from its hidden state, which keeps
words apart for the U-Net's cross-attention. Sizes and weights are our choice (not specified in the
paper's available sources).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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


HAIR: dict[str, str] = {  # attributes of which a sample has exactly one -> the prompt of each
    f"{color.capitalize()}_Hair": f"a person with {color} hair"
    for color in ("black", "brown", "blond", "red", "gray")
}
PAIRS: dict[str, tuple[str, str]] = {  # attribute -> prompts of true and of false
    "Male": ("a man", "a woman"),
    "Smiling": ("a smiling person", "a person"),
    "Eyeglasses": ("a person wearing eyeglasses", "a person"),
}


@dataclass(frozen=True)
class TextImageSettings(Settings):
    """Architecture and training."""

    minutes: float = 15.0
    batch_size: int = 128
    learning_rate: float = 6e-4
    ema_half_life_steps: float = 100.0
    cooldown: float = 0.4
    # the tower, as CLIPTextConfig names things
    text: Suppress[dict[str, Any]] = field(default_factory=lambda: TOWER | {"num_hidden_layers": 4})
    # the tower, as CLIPVisionConfig names things
    vision: Suppress[dict[str, Any]] = field(
        default_factory=lambda: (
            TOWER | {"num_hidden_layers": 6, "image_size": 128, "patch_size": 16}
        )
    )
    projection_dim: Suppress[int] = 128  # of the common embedding
    attribute_weight: float = 1.0  # of the attribute head's loss
    word_weight: float = 0.1  # of the word head's loss
    unknown_words: float = 0.02  # share of words shown as <unk>, so that it gets a harmless meaning


class TextImage(Recipe[TextImageSettings]):
    """The words that the denoiser understands, and the encoder behind CLIP scores.

    Raises:
        FileNotFoundError: the folder of the stylised renders is there, but not all of its shards
    """

    name = "text_image"
    averaged = ("clip",)

    def build(self) -> None:
        settings, device = self.settings, self.device
        sets = [self.train_set]
        if (self.folders.data.expanduser() / "styles").is_dir():  # stylised renders
            sets.append(FaceDataset(self.folders.data, "styles"))
        images, masks = (torch.cat([getattr(s, k) for s in sets]) for k in ("images", "masks"))
        self.images, self.masks = resident(images, device), resident(masks, device)
        captions, self.offsets = flat_captions([some for s in sets for some in s.captions])
        attributes = torch.cat([s.attributes for s in sets])
        # a statue shows no hair colour, so of stylised pictures only the captions are believed
        attributes[len(self.train_set) :] = -1
        self.attributes, self.training_images = attributes.to(device), len(attributes)
        self.tokenizer = build_tokenizer(captions)
        self.ids = token_ids(self.tokenizer, captions)
        text = settings.text | {
            "vocab_size": len(self.tokenizer),
            "max_position_embeddings": self.tokenizer.model_max_length,
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.tokenizer.pad_token_id,
        }
        width = settings.projection_dim
        towers = CLIPConfig(text_config=text, vision_config=settings.vision, projection_dim=width)
        with self.seeded():
            self.clip = CLIPModel(towers).to(device)
            self.heads = nn.ModuleDict(  # that only training needs
                {
                    "attributes": nn.Linear(width, len(ATTRIBUTES)),
                    "words": nn.Linear(settings.text["hidden_size"], len(self.tokenizer)),
                }
            ).to(device)
        parameters = [*self.clip.parameters(), *self.heads.parameters()]
        optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=0.05)
        self.modules = {"clip": self.clip, "heads": self.heads}
        self.optimizers = {"clip": optimizer}

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
        logits = self.heads["attributes"](embedding * embedding.shape[1] ** 0.5).float()
        wanted = self.attributes[rows]
        yes, known = (wanted == 1).float(), (wanted >= 0).float()
        loss = F.binary_cross_entropy_with_logits(logits, yes, known, reduction="sum")
        return loss / known.sum().clamp(min=1)

    def step(self, step: int, rng: torch.Generator) -> Logged:
        settings, clip, rows = self.settings, self.clip, self.rows(self.training_images, step)
        picked, shown, asked = self.drawn_words(rows, rng)
        asked = asked.flatten().nonzero()[:, 0]
        picked, shown, asked = (moved(x, self.device) for x in (picked, shown, asked))
        images, masks = (taken(x, rows, self.device) for x in (self.images, self.masks))
        images, _ = mirror_and_shift(images, masks, rng)
        rows = moved(rows, self.device)
        clip.train()
        with self.autocast():
            text, image = clip.text_model(shown), clip.vision_model(to_float(images))
            text_embedding = F.normalize(clip.text_projection(text.pooler_output).float(), dim=1)
            seen = clip.visual_projection(image.pooler_output).float()
            image_embedding = F.normalize(seen, dim=1)
            word_logits = self.heads["words"](text.last_hidden_state.flatten(0, 1)[asked]).float()
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


@torch.no_grad()
def embed_text(clip: CLIPModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    """Unit embeddings (K, D)."""
    ids = token_ids(tokenizer, texts).to(clip.device)
    return F.normalize(clip.text_projection(clip.text_model(ids).pooler_output), dim=1)


@torch.no_grad()
def embed_images(clip: CLIPModel, images: Tensor, batch: int = 64) -> Tensor:
    """uint8 (N, 3, 128, 128) -> unit embeddings (N, D)."""
    floats = (to_float(x.to(clip.device)) for x in images.split(batch))
    parts = [clip.vision_model(x).pooler_output for x in floats]
    return F.normalize(clip.visual_projection(torch.cat(parts)), dim=1)


def measure(
    clip: CLIPModel, tokenizer: PreTrainedTokenizerFast, dataset: FaceDataset
) -> dict[str, float]:
    """Retrieval among up to 200 first views, and zero-shot accuracies over the split.

    A zero-shot task is left out if the tokenizer does not know all words of its prompts or the
    split does not hold two of its classes.
    """
    clip.eval()
    split, found = dataset.split, {}
    image = embed_images(clip, dataset.images).cpu()
    views = dataset.first_views()[:200]
    captions = [dataset.captions[i][0] for i in views.tolist()]
    text = embed_text(clip, tokenizer, captions).cpu()
    rank = (image[views] @ text.T).argsort(1, descending=True)
    place = (rank == torch.arange(len(views))[:, None]).float().argmax(1)
    n = len(views)
    found[f"caption retrieval R@1 of {n}, {split}"] = (place < 1).float().mean().item()
    found[f"caption retrieval R@5 of {n}, {split}"] = (place < 5).float().mean().item()

    def column(name: str) -> Tensor:
        return dataset.attributes[:, ATTRIBUTES.index(name)]

    def read(task: str, prompts: Sequence[str], labels: Tensor, used: Tensor) -> None:
        """Mean over classes of the share of right readings, so that rare classes count."""
        unknown = tokenizer.unk_token_id in tokenizer(" ".join(prompts))["input_ids"]
        classes = labels[used].unique()
        if not unknown and len(classes) > 1:
            said = (image @ embed_text(clip, tokenizer, prompts).cpu().T).argmax(1)
            shares = [(said == k)[used & (labels == k)].float().mean() for k in classes]
            found[f"zero-shot {task}, {split}"] = torch.stack(shares).mean().item()

    colors = torch.stack([column(name) for name in HAIR], 1) == 1
    task = f"hair colour, {len(HAIR)} classes"
    read(task, list(HAIR.values()), colors.int().argmax(1), colors.sum(1) == 1)
    for name, pair in PAIRS.items():
        read(name, pair, (column(name) == 0).long(), column(name) >= 0)
    return found
