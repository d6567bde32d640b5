"""What the card of the text-image encoder states: retrieval and zero-shot readings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, PreTrainedTokenizerFast

from dmgi_lib.dataset import ATTRIBUTES, FaceDataset, to_float

# attributes of which a sample has exactly one -> the prompt of each
ZERO_SHOT: dict[str, dict[str, str]] = {
    "hair colour": {
        "Black_Hair": "a person with black hair",
        "Brown_Hair": "a person with brown hair",
        "Blond_Hair": "a person with blond hair",
        "Red_Hair": "a person with red hair",
        "Gray_Hair": "a person with gray hair",
    },
}
PAIRS: dict[str, tuple[str, str]] = {  # attribute -> prompts of true and of false
    "Male": ("a man", "a woman"),
    "Smiling": ("a smiling person", "a person"),
    "Eyeglasses": ("a person wearing eyeglasses", "a person"),
}


@torch.no_grad()
def embed_text(clip: CLIPModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    """Unit embeddings (K, D)."""
    ids = tokenizer(
        list(texts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )["input_ids"].to(clip.device)
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

    def accuracy(prompts: Sequence[str], labels: Tensor, used: Tensor) -> dict[str, float]:
        """Mean over classes of the share of right readings, so that rare classes count."""
        unknown = tokenizer.unk_token_id in tokenizer(" ".join(prompts))["input_ids"]
        classes = labels[used].unique()
        if unknown or len(classes) < 2:
            return {}
        read = (image @ embed_text(clip, tokenizer, prompts).cpu().T).argmax(1)
        shares = [(read == k)[used & (labels == k)].float().mean() for k in classes]
        return {"": torch.stack(shares).mean().item()}

    for task, prompts in ZERO_SHOT.items():
        values = torch.stack([column(name) for name in prompts], 1) == 1
        got = accuracy(list(prompts.values()), values.int().argmax(1), values.sum(1) == 1)
        found |= {f"zero-shot {task}, {len(prompts)} classes, {split}": v for v in got.values()}
    for name, pair in PAIRS.items():
        got = accuracy(pair, (column(name) == 0).long(), column(name) >= 0)
        found |= {f"zero-shot {name}, {split}": v for v in got.values()}
    return found
