"""Fixtures that several unit tests share."""

import numpy as np
import pytest
import torch
from tiny_models import face_mask, pipeline
from tiny_shards import encoded
from tiny_training import CONFIG

from data_prep.shard_writer import write_split
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.masks import mask_to_image
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.feature_cache import FeatureCache, build


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> FaceDataset:
    root = tmp_path_factory.mktemp("faces")
    samples = []
    for i in range(10):
        pixels = np.zeros((128, 128, 3), np.uint8)
        pixels[:, : 12 * i + 6] = (25 * i, 90, 200)
        mask = face_mask()
        mask[:20, : 10 * i] = 13
        captions = ["a young woman", "an old man with gray hair"]
        record = {"id": f"{i:06d}", "identity": i, "captions": captions, "attributes": {}}
        image, drawn = encoded(pixels, "WEBP", lossless=True), encoded(mask_to_image(mask))
        samples.append(record | {"image": image, "mask": drawn})
    write_split(root / "train", samples)
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
