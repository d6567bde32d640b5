"""Fixtures that several unit tests share."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import face_mask, pipeline
from tiny_training import CONFIG

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.masks import mask_to_image
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.feature_cache import FeatureCache, build


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> FaceDataset:
    root = tmp_path_factory.mktemp("faces")
    for name in ("images", "masks"):
        (root / "train" / name).mkdir(parents=True)
    lines = []
    for i in range(10):
        pixels = np.zeros((128, 128, 3), np.uint8)
        pixels[:, : 12 * i + 6] = (25 * i, 90, 200)
        Image.fromarray(pixels).save(root / f"train/images/{i:06d}.webp", lossless=True)
        mask = face_mask()
        mask[:20, : 10 * i] = 13
        mask_to_image(mask).save(root / f"train/masks/{i:06d}.png")
        captions = ["a young woman", "an old man with gray hair"]
        record = {"id": f"{i:06d}", "identity": i, "captions": captions, "attributes": {}}
        lines.append(json.dumps(record))
    (root / "train/metadata.jsonl").write_text("\n".join(lines))
    return FaceDataset(root)


@pytest.fixture(scope="module")
def pipe() -> DMGIPipeline:
    torch.set_num_threads(1)
    return pipeline()


@pytest.fixture(scope="module")
def cache(pipe, dataset, tmp_path_factory) -> FeatureCache:
    return build(CONFIG, pipe, dataset, tmp_path_factory.mktemp("cache"), views=2, batch_size=3)


@pytest.fixture(scope="module")
def loss_net() -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(channels=(4, 8, 8, 8, 8))
