"""Small models, judges, samples and readings for tests of the evaluation."""

from dataclasses import replace

import tiny_models
import torch
from transformers import CLIPConfig, CLIPModel

from dmgi_lib import recognizers
from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation.read import Reading
from dmgi_lib.evaluation.rows import TableConfig
from dmgi_lib.evaluation.samples import GroundTruth
from dmgi_lib.evaluation.table import Table
from dmgi_lib.mask_encoder import MaskEncoder
from dmgi_lib.masks import CLASSES


def ground_truth(n: int) -> GroundTruth:
    """N samples with pictures of noise, shifted masks and one caption."""
    mask = tiny_models.face_mask()
    rng = torch.Generator().manual_seed(0)
    caption = "a young woman with black hair ."
    return GroundTruth(
        torch.rand(n, 3, 128, 128, generator=rng) * 2 - 1,
        torch.stack([mask.roll(8 * i, dims=1) for i in range(n)]),
        torch.randint(-1, 2, (n, len(ATTRIBUTES)), generator=rng, dtype=torch.int8),
        [{"id": f"{i:06d}", "captions": [caption], "hair_color": "black"} for i in range(n)],
        [caption] * n,
    )


def samples(n: int = 4) -> GroundTruth:
    """N samples with captions and sexes of their own."""
    truth = ground_truth(n)
    records = [r | {"attributes": {"Male": i % 2 == 0}} for i, r in enumerate(truth.records)]
    words = ("young", "old", "smiling", "red", "gray", "brown")
    prompts = [f"a {words[i % len(words)]} woman" for i in range(n)]
    return replace(truth, records=records, prompts=prompts)


def reading(n: int = 6, right: float = 1.0, seed: int = 0, **fields: torch.Tensor) -> Reading:
    """N pictures: pixels and attributes are read right with chance `right`, the rest is by chance.

    fields: replaced ones, of Reading.
    """
    rng = torch.Generator().manual_seed(seed)
    share = torch.tensor([round(100 * right), 100 - round(100 * right)])
    own = torch.zeros(n, len(CLASSES), len(CLASSES), dtype=torch.int64)
    own[:, 0, :2], own[:, 1, :2] = share, share.flip(0)  # mIoU = right / (2 - right)
    claims = torch.randint(0, 2, (n, len(ATTRIBUTES)), generator=rng, dtype=torch.int8)
    hit = torch.rand(n, len(ATTRIBUTES), generator=rng) < right
    found = {
        "own": own,
        "embedding": torch.randn(n, 3, generator=rng),
        "reference": torch.randn(n, 3, generator=rng),
        "sees": torch.where(hit, claims == 1, claims != 1),
        "is": claims,
        "says": claims,
        "background": torch.rand(n, 3, generator=rng),
    }
    for name in ("ssim", "perceptual", "identity", "clip", "edges"):
        found[name] = torch.rand(n, generator=rng)
    return Reading.of([f"{i:06d}" for i in range(n)], found | fields)


def tiny_judges() -> recognizers.Judges:
    """Untrained, the same every time."""
    torch.manual_seed(0)
    return recognizers.Judges(
        recognizers.ParserJudge(channels=(4, 4, 4, 4)).eval(),
        recognizers.AttributeJudge(channels=(4, 4, 4, 4)).eval(),
        recognizers.IdentityJudge(channels=(4, 4, 4, 4)).eval(),
    )


def tiny_clip(pipe) -> CLIPModel:
    """Untrained, with the pipeline's vocabulary."""
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    tower |= {"num_attention_heads": 2}
    text = {"vocab_size": len(pipe.tokenizer), "max_position_embeddings": 12, "eos_token_id": 2}
    vision = tower | {"image_size": 128, "patch_size": 64}
    config = CLIPConfig(text_config=tower | text, vision_config=vision, projection_dim=8)
    return CLIPModel(config).eval()


def tiny_encoder() -> MaskEncoder:
    torch.manual_seed(0)
    return MaskEncoder(128, 12, 16, channels=(4, 4, 4, 4, 4), width=8)


def tiny_table(folder, **options) -> Table:
    """A table of 4 samples, rows kept in `folder`; options: of Table."""
    torch.set_num_threads(1)
    pipe = options.pop("pipe", None) or tiny_models.pipeline()
    sizes = {"n_inversion": 2, "inversion_steps": 2, "text_steps": 2, "controlnet_steps": 6}
    sizes |= {"n_diverse": 2}
    parts = {
        "truth": samples(),
        "training": samples().images.flip(0),
        "clip": tiny_clip(pipe),
        "config": TableConfig(**sizes),
        "mask_encoder": tiny_encoder(),
        "judges": tiny_judges(),
        "folder": folder,
        "facts": {"seed": 0},
    }
    return Table(pipe=pipe, **(parts | options))


def save_folder(pipe, loss_net, folder):
    """A pipeline's folder with judges, loss net and text-image encoder."""
    pipe.save_pretrained(folder)
    judged = tiny_judges()
    for name, part in {
        "judge_parser": judged.parser,
        "judge_attributes": judged.attributes,
        "judge_identity": judged.identity,
        "loss_net": loss_net,
        "image_encoder": tiny_clip(pipe),
    }.items():
        part.save_pretrained(folder / name)
    return folder
