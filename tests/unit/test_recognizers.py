"""Recognition networks: shapes, differentiability, storage."""

import pytest
import torch

from dmgi_lib import recognizers
from dmgi_lib.dataset import ATTRIBUTES, FACE_ATTRIBUTES
from dmgi_lib.presets import MINI


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


SMALL = {
    recognizers.Recognizer: (4, 8, 8, 8, 8),
    recognizers.AttributeJudge: (4, 8, 8, 8),
}


@pytest.mark.parametrize("kind", list(SMALL))
def test_networks_say_which_attributes_they_read(kind, tmp_path):
    """In the order of ATTRIBUTES outside, whatever order their own logits have."""
    torch.manual_seed(0)
    names = ("Suit", "Bald", "Hat_Red")
    network = kind(channels=SMALL[kind], attributes=names).eval()
    network.save_pretrained(tmp_path)
    network = kind.from_pretrained(tmp_path).eval()
    assert [ATTRIBUTES[i] for i in network.reads.nonzero()[:, 0]] == ["Bald", "Suit", "Hat_Red"]
    own = torch.randn(2, len(names) + len(recognizers.HAIR_COLORS))
    placed, hair = network._placed(own)
    assert torch.equal(placed[:, [ATTRIBUTES.index(name) for name in names]], own[:, :3])
    assert torch.equal(hair, own[:, 3:]) and (placed[:, ~network.reads] == 0).all()
    image = torch.rand(2, 3, 128, 128)
    found = network(image).attributes if hasattr(network, "stages") else network(image)[0]
    assert found.shape == (2, len(ATTRIBUTES)) and (found[:, ~network.reads] == 0).all()
    assert (found[:, network.reads] != 0).all()
    assert kind(channels=SMALL[kind]).config.attributes == FACE_ATTRIBUTES
    for wrong in (("Bald", "Beautiful"), ("Bald", "Bald")):
        with pytest.raises(ValueError, match="expected each once"):
            kind(channels=SMALL[kind], attributes=wrong)


def test_the_weights_that_ship_read_faces():
    judge = recognizers.AttributeJudge.from_pretrained(MINI.folder / "judge_attributes")
    loss_net = recognizers.Recognizer.from_pretrained(MINI.folder / "loss_net")
    for network in (judge, loss_net):
        assert network.reads.tolist() == [name in FACE_ATTRIBUTES for name in ATTRIBUTES]


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
