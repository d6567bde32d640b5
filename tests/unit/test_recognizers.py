"""Recognition networks: shapes, differentiability, storage, and that training teaches them."""

import pytest
import torch

from data_prep.priors import train_recognizers
from data_prep.priors.recognizer_augmentation import augment, degrade, mirror_and_shift
from data_prep.priors.recognizer_measurements import MEASURE, identity_measurements, true_codes
from dmgi_lib import recognizers
from dmgi_lib.dataset import ATTRIBUTES, FaceDataset
from dmgi_lib.training.loop import LoopConfig


def test_shapes_of_all_readings():
    image = torch.rand(2, 3, 128, 128) * 2 - 1
    loss_net = recognizers.Recognizer().eval()
    assert [tuple(f.shape[1:]) for f in loss_net.features(image)] == [
        (16, 128, 128),
        (32, 64, 64),
        (64, 32, 32),
        (96, 16, 16),
        (128, 8, 8),
    ]
    read = loss_net(image)
    assert read.parsing.shape == (2, 19, 64, 64) and read.attributes.shape == (2, len(ATTRIBUTES))
    assert read.hair_color.shape == (2, 6) and read.code.shape == (2, 49)
    parser = recognizers.ParserJudge().eval()
    maps = parser.parse(image)
    assert maps.shape == (2, 128, 128) and maps.dtype == torch.int64
    assert parser.embedding(image).shape == (2, 128)
    attributes, colors = recognizers.AttributeJudge().eval().read(image)
    assert attributes.shape == (2, len(ATTRIBUTES)) and attributes.dtype == torch.bool
    assert len(colors) == 2 and set(colors) <= set(recognizers.HAIR_COLORS)
    for network in (loss_net, recognizers.IdentityJudge().eval()):
        unit = network.identity(image)
        assert unit.shape == (2, 49)
        torch.testing.assert_close(unit.norm(dim=1), torch.ones(2))


def test_loss_network_passes_gradients_to_the_image():
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    image.requires_grad_(True)
    loss_net = recognizers.Recognizer().eval().requires_grad_(False)
    (loss_net.features(image)[-1].square().mean() + loss_net.identity(image)[0, 0]).backward()
    assert torch.isfinite(image.grad).all() and (image.grad != 0).float().mean() > 0.5


def test_other_sizes_are_resampled_and_bad_input_is_named():
    parser = recognizers.ParserJudge().eval()
    assert parser.parse(torch.zeros(1, 3, 256, 256)).shape == (1, 128, 128)
    with pytest.raises(ValueError, match=r"\(3, 128, 128\)"):
        parser.parse(torch.zeros(3, 128, 128))
    with pytest.raises(ValueError, match="uint8"):
        parser.parse(torch.zeros(1, 3, 128, 128, dtype=torch.uint8))


def test_half_precision_folder_loads_in_full_precision(tmp_path):
    with pytest.raises(FileNotFoundError, match="judge_parser, judge_attributes, judge_identity"):
        recognizers.load_judges(tmp_path)
    torch.manual_seed(0)
    parser = recognizers.ParserJudge(channels=(8, 8, 16, 16)).eval()
    image = torch.rand(1, 3, 128, 128) * 2 - 1
    expected = parser(image)
    for name, network in (
        ("judge_parser", parser),
        ("judge_attributes", recognizers.AttributeJudge(channels=(8, 8, 8, 8))),
        ("judge_identity", recognizers.IdentityJudge(channels=(8, 8, 8, 8))),
    ):
        network.half().save_pretrained(tmp_path / name)
    loaded = recognizers.load_judges(tmp_path)
    for network in (loaded.parser, loaded.attributes, loaded.identity):
        assert not network.training
        assert {p.dtype for p in network.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded.parser(image), expected, atol=0.02, rtol=0.02)


def test_hair_colour_names_and_the_identity_code():
    named = [
        recognizers.hair_color_name(n) for n in ("black", "white", "gray", "none", "purple", None)
    ]
    assert named == ["black", "gray", "gray", "none", None, None]
    code = recognizers.identity_code(torch.ones(1, 48), torch.tensor([0.79]))
    assert code.shape == (1, 49) and code[0, -1].item() == pytest.approx(1.0)


def test_mirroring_swaps_sides_and_image_and_mask_stay_together():
    masks = torch.zeros(1, 128, 128, dtype=torch.uint8)
    masks[:, 40:60, 80:100] = 4  # l_eye, on the right side of the picture
    images = masks[:, None].expand(1, 3, 128, 128) * 50
    sides = set()
    for seed in range(12):
        rng = torch.Generator().manual_seed(seed)
        moved, classes = mirror_and_shift(images, masks, rng)
        assert torch.equal(moved[:, 0] > 0, classes > 0)
        on_the_right = bool((classes[:, :, 64:] > 0).any())
        assert set(classes.unique().tolist()) == {0, 4 if on_the_right else 5}
        sides.add(on_the_right)
    assert sides == {True, False}


def test_degradation_is_repeatable_and_keeps_the_picture(tiny_faces):
    faces = FaceDataset(tiny_faces, "train")
    x, _ = augment(faces.images, faces.masks, torch.Generator().manual_seed(3))
    y, _ = augment(faces.images, faces.masks, torch.Generator().manual_seed(3))
    assert torch.equal(x, y) and x.abs().max() <= 1
    clean = faces.images.float() / 127.5 - 1
    error = (degrade(clean, torch.Generator().manual_seed(0)) - clean).square().mean(dim=(1, 2, 3))
    assert 0 < error.max() < 0.05 and (error == 0).any()


@pytest.mark.parametrize(
    ("which", "steps", "reading", "before", "after"),
    [
        ("judge_parser", 24, "parsing pixel accuracy", 0.3, 0.75),
        ("judge_attributes", 24, "hair-colour accuracy", 0.4, 0.7),
        ("judge_identity", 32, "variance explained, skin tone", 0.1, 0.5),
        ("loss_net", 32, "parsing pixel accuracy", 0.3, 0.6),
    ],
)
def test_a_few_steps_teach(which, steps, reading, before, after, tiny_faces, tmp_path):
    faces = FaceDataset(tiny_faces, "train")
    config = LoopConfig(
        run_dir=tmp_path,
        minutes=5,
        max_steps=steps,
        batch_size=8,
        seed=1,
        learning_rate=4e-3,
        ema_half_life_steps=3,
        cooldown=0.5,
        log_every=6,
    )
    torch.manual_seed(1)  # of the untrained weights
    untrained = train_recognizers.RECIPES[which].build().eval()
    assert MEASURE[which](untrained, faces)[reading] < before
    network, result = train_recognizers.train(which, faces, config)
    assert result.step == steps
    assert MEASURE[which](network, faces)[reading] > after


def test_command_line_trains_exports_and_writes_a_card(tiny_faces, tmp_path, capsys):
    out = tmp_path / "weights" / "judge_attributes"
    arguments = ["--which", "judge_attributes", "--data", str(tiny_faces), "--out", str(out)]
    arguments += ["--run-dir", str(tmp_path / "run"), "--threads", "1", "--batch-size", "4"]
    train_recognizers.main([*arguments, "--max-steps", "2", "--minutes", "1"])
    names = {"config.json", "diffusion_pytorch_model.safetensors", "hair_colors.json", "card.md"}
    assert {p.name for p in out.iterdir()} == names
    card = (out / "card.md").read_text()
    assert "--which judge_attributes" in card and "| seed | 32 |" in card
    assert "hair colour by pixels (test)" in card and "balanced accuracy Male (test)" in card
    before = (out / "diffusion_pytorch_model.safetensors").read_bytes()
    train_recognizers.main([*arguments, "--export-only"])
    assert (out / "diffusion_pytorch_model.safetensors").read_bytes() == before
    assert "exported to" in capsys.readouterr().out


def test_identity_measurements_of_perfect_and_of_blind_codes(tiny_faces):
    faces = FaceDataset(tiny_faces, "train")  # its two second views have shapes of their own
    true = true_codes(faces)
    true[-2:] = true[:2]
    perfect = identity_measurements(true, faces)
    assert perfect["same pairs"] == 2
    assert perfect["verification AUC"] == 1.0
    assert perfect["cosine of same pairs"] == pytest.approx(1.0)
    assert perfect["variance explained, skin tone"] > 0.5
    blind = identity_measurements(torch.ones_like(true), faces)
    assert blind["verification AUC"] == pytest.approx(0.5)
    assert identity_measurements(true_codes(faces), faces)[
        "variance explained, head shape"
    ] == pytest.approx(1.0)
