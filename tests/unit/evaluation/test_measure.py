"""The measuring protocol: word swap, rows, shuffled masks, and the whole run on tiny networks."""

import json

import numpy as np
import pytest
import tiny_models
import torch

from dmgi_lib import recognizers
from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation import measure, protocol
from dmgi_lib.evaluation.metrics import HairColorReference
from dmgi_lib.evaluation.word_swap import (
    score_hair_colors,
    swap_hair_color,
    swappable_caption,
)


@pytest.mark.parametrize(
    ("caption", "swapped"),
    [
        ("a man with black hair .", "a man with red hair ."),
        ("a Blonde, wavy hair woman", "a red, wavy hair woman"),
        ("she has long black and straight hair", "she has long red and straight hair"),
        ("an old man with brown eyes and gray hair", "an old man with brown eyes and red hair"),
        ("a grey-haired man", "a red-haired man"),
        ("She has dark black hair, sleek hair.", "She has red hair, sleek hair."),
        ("her hair is golden", "her hair is red"),
        ("a man with brown eyes and long hair", None),
        ("a bald man with a black beard", None),
        ("black hair, or is it brown hair?", None),
    ],
)
def test_only_the_hair_colour_is_swapped(caption, swapped):
    assert swap_hair_color(caption, "red") == swapped
    assert swappable_caption(["a man", caption]) == (caption if swapped else None)


class StubJudge:
    """Reads a colour from the brightness of the picture."""

    def read(self, image):
        bright = image.mean(dim=(1, 2, 3)) > 0
        return torch.zeros(len(image), len(ATTRIBUTES), dtype=bool), [
            "blond" if b else "black" for b in bright
        ]


def test_hair_scores_by_hand():
    masks = torch.full((4, 16, 16), 13, dtype=torch.uint8)
    brightness = torch.tensor([0.6, -0.8, -0.8, 0.6])
    images = brightness[:, None, None, None].expand(4, 3, 16, 16).contiguous()
    means = torch.tensor([[11.0, 0, 0], [82.0, 0, 0]], dtype=torch.float64)
    covariances = 25 * torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    reference = HairColorReference(("black", "blond"), means, covariances)
    wanted = ["blond", "black", "blond", "blond"]
    result = score_hair_colors(
        images, masks, wanted, StubJudge(), reference, np.random.default_rng(0)
    )
    assert result["n"] == 4
    for reader in ("judge", "pixels"):
        assert result[reader]["share"] == 0.75
        assert result[reader]["read_as"] == {
            "blond": {"blond": 2, "black": 1},
            "black": {"black": 1},
        }
    low, high = result["both"]["interval"]
    assert low <= 0.75 <= high


def ground_truth(n: int) -> protocol.GroundTruth:
    mask = tiny_models.face_mask()
    rng = torch.Generator().manual_seed(0)
    return protocol.GroundTruth(
        torch.rand(n, 3, 128, 128, generator=rng) * 2 - 1,
        torch.stack([mask.roll(8 * i, dims=1) for i in range(n)]),
        torch.randint(-1, 2, (n, len(ATTRIBUTES)), generator=rng, dtype=torch.int8),
        [{"captions": ["a young woman with black hair ."], "hair_color": "black"}] * n,
        ["a young woman with black hair ."] * n,
    )


class Oracle:
    """Parser that knows the masks: it finds an image's number in its first pixel."""

    def __init__(self, masks):
        self.masks = masks

    def parse(self, image):
        return self.masks[image[:, 0, 0, 0].round().long()].long()

    def features(self, image):
        return [image]

    def embedding(self, image):
        return image[:, :, 2, :2].flatten(1)


def test_a_row_separates_the_own_mask_from_the_masks_of_others():
    truth = ground_truth(4)
    truth.images[:, 0, 0, 0] = torch.arange(4).float()
    torch.manual_seed(0)
    judged = recognizers.Judges(
        Oracle(truth.masks),
        recognizers.AttributeJudge(channels=(4, 4, 4, 4)).eval(),
        recognizers.IdentityJudge(channels=(4, 4, 4, 4)).eval(),
    )
    row = protocol.score(truth.images, truth, judged, seed=0)
    assert row["mIoU"] == row["ACC"] == 1.0
    assert row["mIoU shuffled"] < 0.8  # every mask is another one, shifted by at least 8 pixels
    assert row["mIoU gap"] == pytest.approx(1 - row["mIoU shuffled"])
    assert row["mIoU gap low"] <= row["mIoU gap"] <= row["mIoU gap high"]
    assert row["SSIM"] == pytest.approx(1) and row["identity cosine (shape judge)"] > 0.999
    assert row["perceptual distance (parser features)"] == pytest.approx(0, abs=1e-6)
    assert row["FID (parser features)"] == pytest.approx(0, abs=1e-4)
    bare = protocol.score(truth.images, truth, judged, seed=0, resamples=0)
    assert bare == {k: v for k, v in row.items() if not k.endswith((" low", " high"))}


def test_noise_of_an_image_does_not_depend_on_the_batch_size():
    pipe, truth = tiny_models.pipeline(), ground_truth(3)
    prompts = ["a man with red hair", "a woman with black hair", "a young man"]
    one, _ = protocol.draw(pipe, prompts, truth.masks, 0, seed=5, batch_size=1)
    many, early = protocol.draw(pipe, prompts, truth.masks, 0, seed=5, batch_size=2)
    torch.testing.assert_close(one, many, atol=2e-3, rtol=0)
    other, complete = protocol.draw(pipe, prompts, truth.masks, -1, seed=5, batch_size=2)
    assert early is None and complete.shape == other.shape == (3, 3, 128, 128)


def test_the_report_says_which_goals_are_missed(tmp_path, monkeypatch):
    truth = ground_truth(3)
    torch.manual_seed(0)
    judged = recognizers.Judges(
        recognizers.ParserJudge(channels=(4, 4, 4, 4)).eval(),
        recognizers.AttributeJudge(channels=(4, 4, 4, 4)).eval(),
        recognizers.IdentityJudge(channels=(4, 4, 4, 4)).eval(),
    )
    means = torch.tensor([[11.0, 0, 0], [82.0, 0, 0]], dtype=torch.float64)
    covariances = 25 * torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    reference = HairColorReference(("black", "blond"), means, covariances)
    speed = dict.fromkeys(("exit_step_0", "full_process", "first_image", "peak_memory_gb"), 0.5)
    speed |= {"load": 11.0, "ratio": 1.0, "peak_memory_full_gb": 0.5, "num_inference_steps": 4}
    monkeypatch.setattr(measure, "measure_in_fresh_process", lambda weights: speed)
    monkeypatch.setattr(measure, "load_judges", lambda folder: judged)
    monkeypatch.setattr(measure, "FaceDataset", lambda root, split: None)
    monkeypatch.setattr(measure.GroundTruth, "read", lambda dataset, n: truth)
    monkeypatch.setattr(measure.HairColorReference, "load", lambda path: reference)
    pipe = tiny_models.pipeline()
    monkeypatch.setattr(measure.DMGIPipeline, "from_pretrained", lambda name: pipe)
    out = tmp_path / "deep" / "measure.json"
    measure.main(["--out", str(out), "--data", str(tmp_path), "--n", "3", "--n-swap", "2"])
    result = json.loads(out.read_text())
    assert [p.name for p in out.parent.iterdir()] == ["measure.json"]
    assert list(result["rows"]) == [
        "ground truth (ceiling of the judges)",
        "DMGI, exit step 0 of 0…3",
        "DMGI, exit step 3 of 0…3",
        "I_0^d, the diffusion model's own image",
        "random face of G (floor)",
    ]
    assert result["hair colour"]["DMGI, exit step 0"]["n"] == 10  # 2 captions, 5 colours
    met = {goal["name"]: goal["met"] for goal in result["goals"]}
    assert not met["loading (imports included), s"] and met["peak memory, GB"]
    text = measure.report(result)
    assert "N = 3 test identities" in text and "MISSED" in text and result["date"] in text


def test_too_small_a_measurement_is_refused():
    with pytest.raises(ValueError, match="n=1"):
        measure.MeasureConfig(n=1)
