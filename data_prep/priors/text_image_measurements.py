"""What the card of the text-image encoder states: retrieval and zero-shot readings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, PreTrainedTokenizerFast

from data_prep.priors.caption_tokens import token_ids
from dmgi_lib.dataset import ATTRIBUTES, FaceDataset, to_float

HAIR: dict[str, str] = {  # attributes of which a sample has exactly one -> the prompt of each
    f"{color.capitalize()}_Hair": f"a person with {color} hair"
    for color in ("black", "brown", "blond", "red", "gray")
}
PAIRS: dict[str, tuple[str, str]] = {  # attribute -> prompts of true and of false
    "Male": ("a man", "a woman"),
    "Smiling": ("a smiling person", "a person"),
    "Eyeglasses": ("a person wearing eyeglasses", "a person"),
}


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
