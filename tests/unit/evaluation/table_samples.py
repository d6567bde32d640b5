"""Small models, judges and readings for tests of Table 1."""

from dataclasses import replace

import torch
from test_measure import ground_truth
from tiny_models import pipeline
from transformers import CLIPConfig, CLIPModel

from dmgi_lib import recognizers
from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation.baselines import MaskEncoder
from dmgi_lib.evaluation.protocol import GroundTruth
from dmgi_lib.evaluation.reading import Reading
from dmgi_lib.evaluation.row_files import RowFiles
from dmgi_lib.evaluation.table_rows import Table, TableConfig
from dmgi_lib.masks import CLASSES


def reading(n: int = 6, right: float = 1.0, seed: int = 0, **fields: torch.Tensor) -> Reading:
    """N pictures whose pixels and attributes are read right with chance `right`, other columns by
    chance; fields: replaced ones."""
    rng = torch.Generator().manual_seed(seed)
    share = torch.tensor([round(100 * right), 100 - round(100 * right)])
    own = torch.zeros(n, len(CLASSES), len(CLASSES), dtype=torch.int64)
    own[:, 0, :2], own[:, 1, :2] = share, share.flip(0)  # mIoU = right / (2 - right)
    count = len(ATTRIBUTES)
    claims = torch.randint(0, 2, (n, count), generator=rng, dtype=torch.int8)
    hit = torch.rand(n, count, generator=rng) < right
    values = {
        "own": own,
        "shuffled": own.flip(-1),
        "embedding": torch.randn(n, 3, generator=rng),
        "reference": torch.randn(n, 3, generator=rng),
        "perceptual": torch.rand(n, generator=rng),
        "ssim": torch.rand(n, generator=rng).double(),
        "identity": torch.rand(n, generator=rng),
        "attributes": torch.where(hit, claims == 1, claims != 1),
        "known": claims,
        "claims": claims,
        "clip": torch.rand(n, generator=rng),
    }
    return Reading(**(values | fields))


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


def samples(n: int = 4) -> GroundTruth:
    """N samples with captions and sexes of their own."""
    truth = ground_truth(n)
    records = [r | {"attributes": {"Male": i % 2 == 0}} for i, r in enumerate(truth.records)]
    words = ("young", "old", "smiling", "red", "gray", "brown")
    prompts = [f"a {words[i % len(words)]} woman" for i in range(n)]
    return replace(truth, records=records, prompts=prompts)


def tiny_table(folder, **options) -> Table:
    """A table of 4 samples, rows kept in `folder`; options: of Table."""
    torch.set_num_threads(1)
    pipe = pipeline()
    sizes = {"n_inversion": 2, "inversion_steps": 2, "text_steps": 2, "controlnet_steps": 6}
    parts = {
        "config": TableConfig(**sizes),
        "files": RowFiles(folder, seed=0),
        "mask_encoder": MaskEncoder(128, 12, 16, channels=(4, 4, 4, 4, 4), width=8),
    }
    return Table(pipe, samples(), tiny_judges(), tiny_clip(pipe), **(parts | options))
