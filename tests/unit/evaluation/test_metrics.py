"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from dmgi_lib.dataset import FaceDataset, shipped_root, to_float
from dmgi_lib.evaluation import metrics


def maps(*rows: list[int]) -> torch.Tensor:
    return torch.tensor([rows])


def test_mean_iou_and_pixel_accuracy_by_hand():
    wanted, parsed = maps([0, 0, 1, 1], [0, 0, 1, 13]), maps([0, 1, 1, 1], [0, 0, 1, 2])
    table = metrics.confusion(parsed, wanted)
    assert table.shape == (1, 19, 19) and table.sum() == 8
    assert table[0, 0, 1] == 1 and table[0, 1, 1] == 3 and table[0, 13, 2] == 1
    # IoU: class 0 3/4, class 1 3/4, class 13 wanted but never parsed 0, class 2 the reverse 0
    assert metrics.mean_iou(table) == pytest.approx(1.5 / 4)
    assert metrics.pixel_accuracy(table) == pytest.approx(6 / 8)


def test_mean_iou_sums_counts_over_the_set_before_dividing():
    wanted = torch.tensor([[[1, 1, 1, 1]], [[1, 0, 0, 0]]])
    parsed = torch.tensor([[[1, 1, 1, 1]], [[0, 0, 0, 0]]])
    table = metrics.confusion(parsed, wanted)
    # class 0: 3/4, class 1: 4/5; means over images would give another value
    assert metrics.mean_iou(table) == pytest.approx((0.75 + 0.8) / 2)
    assert metrics.mean_iou(table[:1]) == 1.0  # 17 absent classes do not count
    assert metrics.mean_iou(table[0]) == 1.0


def test_confusion_refuses_maps_of_two_sizes():
    with pytest.raises(ValueError, match=r"\(1, 4, 4\).*\(1, 8, 8\)"):
        metrics.confusion(torch.zeros(1, 4, 4), torch.zeros(1, 8, 8))


def test_frechet_distance_of_shifted_and_scaled_features():
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T  # covariance = 1
    assert 0 <= metrics.frechet_distance(x, x) < 1e-6
    shift = torch.tensor([3.0, 0.0, 4.0])
    assert metrics.frechet_distance(x, x + shift) == pytest.approx(25, rel=1e-6)
    # tr(1 + 4 - 2·sqrt(4)) over three dimensions = 3
    assert metrics.frechet_distance(x, 2 * x) == pytest.approx(3, rel=1e-6)


def test_perceptual_distance_ignores_length_and_counts_angle():
    a = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    b = torch.tensor([0.0, 5.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert metrics.perceptual_distance([a, a], [3 * a, a]).item() == pytest.approx(0)
    # two orthogonal unit vectors are sqrt(2) apart; the second scale agrees
    assert metrics.perceptual_distance([a, a], [b, a]).item() == pytest.approx(1.0)


def test_ssim_is_one_for_equal_images_and_falls_with_noise():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    noisy = image + 0.5 * torch.randn(image.shape, generator=generator)
    values = metrics.ssim(image, image)
    assert values.shape == (2,)
    torch.testing.assert_close(values, torch.ones(2, dtype=torch.float64))
    assert metrics.ssim(image, noisy).max() < 0.95
    # constant images: (2ab + c1) / (a² + b² + c1) with a = 0.25, b = 0.75, c1 = 0.01²
    flat = [torch.full((1, 3, 32, 32), v) for v in (-0.5, 0.5)]
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert metrics.ssim(*flat).item() == pytest.approx(expected, abs=5e-4)


def test_single_precision_is_enough_for_ssim_of_portraits():
    images = to_float(FaceDataset(shipped_root(), "test").images[:4])
    a, b = (images + 1) / 2, (images.roll(1, 0) + 1) / 2
    exact = structural_similarity_index_measure(
        a.double(), b.double(), data_range=1.0, reduction="none"
    )
    torch.testing.assert_close(metrics.ssim(images, images.roll(1, 0)), exact, atol=5e-5, rtol=0)


def test_verification_auc_by_hand():
    same, different = torch.tensor([0.9, 0.5]), torch.tensor([0.1, 0.5, 0.7, 0.2])
    # 0.9 beats all four; 0.5 beats two and ties one: (4 + 2.5) / 8
    assert metrics.verification_auc(same, different) == pytest.approx(6.5 / 8)
    unit = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert metrics.identity_cosine(unit, unit.flip(0)).tolist() == pytest.approx([0.6, 0.6])


def test_attribute_accuracies_skip_the_unknown():
    read = torch.tensor([[True, True], [True, False], [False, False]])
    wanted = torch.tensor([[1, -1], [0, 0], [0, 0]], dtype=torch.int8)
    assert metrics.attribute_accuracy(read, wanted) == pytest.approx(4 / 5)
    balanced = metrics.balanced_accuracy(read, wanted)
    assert balanced[0].item() == pytest.approx((1 + 0.5) / 2)
    assert math.isnan(balanced[1].item())  # never true: no balanced accuracy


def test_lab_of_known_colours():
    colors = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    expected = [[100.0, 0.0, 0.0], [0.0, 0.0, 0.0], [53.24, 80.09, 67.20]]
    torch.testing.assert_close(
        metrics.to_lab(colors), torch.tensor(expected, dtype=torch.float64), atol=0.05, rtol=0
    )


def hair_image(color: tuple[float, float, float], rng: np.random.Generator) -> torch.Tensor:
    image = torch.full((3, 32, 32), 0.9)
    noise = torch.from_numpy(rng.normal(0, 0.03, (3, 16, 32)))
    image[:, :16] = torch.tensor(color)[:, None, None] * 2 - 1 + noise
    return image


def test_hair_color_by_pixels_reads_the_masks_hair_region_only(tmp_path):
    rng = np.random.default_rng(0)
    colors = {"black": (0.08, 0.07, 0.06), "blond": (0.8, 0.65, 0.4), "red": (0.6, 0.2, 0.1)}
    mask = torch.zeros(32, 32, dtype=torch.uint8)
    mask[:16] = metrics.HAIR
    names = [name for name in colors for _ in range(6)]
    images = torch.stack([hair_image(colors[name], rng) for name in names])
    reference = metrics.HairColorReference.fit(images, mask.expand(18, 32, 32), names)
    reference.save(tmp_path / "hair_colors.json")
    assert [p.name for p in tmp_path.iterdir()] == ["hair_colors.json"]
    reference = metrics.HairColorReference.load(tmp_path / "hair_colors.json")
    assert reference.colors == ("black", "blond", "red")
    for name, color in colors.items():
        image = hair_image(color, rng)
        assert metrics.hair_color_by_pixels(image, mask, reference) == name
        image[:, 16:] = torch.tensor(colors["black"])[:, None, None]  # outside the hair
        assert metrics.hair_color_by_pixels(image, mask, reference) == name
        assert metrics.hair_color_by_pixels(image, torch.zeros_like(mask), reference) == "none"


def test_a_hair_reference_needs_examples():
    with pytest.raises(ValueError, match="two names"):
        metrics.HairColorReference.fit(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8), ["black"])


def test_kernel_distance_is_unbiased_and_sees_a_shift():
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(200, 4, generator=rng) for _ in range(2))
    assert abs(metrics.kernel_distance(a, b)) < 0.1  # one distribution, another sample
    assert metrics.kernel_distance(a, b + 1) > 1


def test_backgrounds_without_pixels_do_not_count():
    image = torch.zeros(3, 3, 16, 16)
    image[1] = 0.5
    where = torch.ones(3, 16, 16, dtype=torch.bool)
    where[2, 4:] = False  # 64 pixels are enough
    where[1, :, 8:] = False
    image[1, :, :, 8:] = 9.0  # not background
    colours = metrics.mean_colour(image, where)
    assert colours[:, 0].tolist() == [0.0, 0.5, 0.0]
    assert metrics.mean_colour(image, where, smallest=65)[2].isnan().all()
    colours[2] = torch.nan
    assert metrics.deviation(colours) == pytest.approx(0.5 / 2**0.5)
    assert math.isnan(metrics.deviation(colours[2:]))


def test_edge_energy_of_a_line():
    image = torch.full((1, 3, 8, 8), -1.0)
    image[..., 4] = 1.0  # grey 0 and 1: |Laplacian| is 2 on the line, 1 beside it, 0 elsewhere
    assert metrics.edge_energy(image).item() == pytest.approx((2 + 1 + 1) / 6)


def test_spread_is_the_mean_distance_of_pairs():
    draws = torch.tensor([[[0.0], [1.0], [3.0]], [[2.0], [2.0], [2.0]]])
    assert metrics.spread(draws).tolist() == [2.0, 0.0]
