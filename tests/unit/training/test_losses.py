import copy
import math

import pytest
import torch
from tiny_devices import fake_cuda, on_cuda
from tiny_models import generator

from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.masks import CLASSES
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training import losses


def images(seed: int = 0, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 128, 128, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def net() -> Recognizer:
    torch.manual_seed(0)
    net = Recognizer(channels=(8, 8, 16, 16, 16)).eval().requires_grad_(False)
    for parameter in net.parameters():  # so that a change of the image reaches every output
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
    return net


def test_l2_by_hand():
    image = torch.zeros(2, 3, 4, 4)
    image[1] += 0.5
    assert losses.l2_loss(image, torch.zeros(2, 3, 4, 4)).tolist() == [0.0, 0.25]


def test_every_part_counts_alike_however_small():
    target, mask = torch.zeros(3, 3, 8, 8), torch.full((3, 8, 8), CLASSES.index("skin"))
    mask[0, 0, :2], mask[0, 4:6] = CLASSES.index("l_eye"), CLASSES.index("mouth")
    mask[1, 0, :2] = CLASSES.index("l_eye")
    image = target + 0.5
    image[:, :, 4:6] = 0.0  # where the first mouth is
    found = losses.parts_loss(image, target, mask)
    assert found.tolist() == pytest.approx([0.125, 0.25, 0.0])  # no part, nothing to ask


def correlated_draws() -> torch.Tensor:
    """Four codes around (1, 5) with the covariance [[2, 1], [1, 2]] (unbiased)."""
    wide, narrow = torch.tensor([1.5, 1.5]), torch.tensor([1.0, -1.0]) * 0.75**0.5
    return torch.stack([wide, -wide, narrow, -narrow]) + torch.tensor([1.0, 5.0])


def offsets(*rows: tuple[float, float]) -> torch.Tensor:
    """One code (1, num_ws, 2) that lies so far from the mean of `correlated_draws`."""
    return torch.tensor([rows]) + torch.tensor([1.0, 5.0])


def test_code_prior_by_hand():
    # the inverse covariance is [[2, -1], [-1, 2]] / 3, and there are two numbers a row
    prior = losses.CodePrior(correlated_draws(), num_ws=3, ridge=0.0)
    rows = prior.rows(offsets((1.0, 0.0), (1.0, 1.0), (1.0, -1.0)))
    assert rows[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1.0])
    w = offsets((1.0, 0.0), (1.0, 1.0), (1.0, -1.0))
    assert prior(w).tolist() == pytest.approx([5 / 9])
    assert prior(offsets((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))).tolist() == [0.0]


def test_code_prior_gradient_by_hand():
    w = offsets((1.0, 0.0), (1.0, -1.0)).requires_grad_()
    losses.CodePrior(correlated_draws(), num_ws=2, ridge=0.0)(w).sum().backward()
    # 2 Σ⁻¹ (w − μ) / (2 numbers · 2 rows)
    assert w.grad[0, 0].tolist() == pytest.approx([1 / 3, -1 / 6])
    assert w.grad[0, 1].tolist() == pytest.approx([1 / 2, -1 / 2])


def test_code_prior_grows_with_the_rows():
    prior = losses.CodePrior(correlated_draws(), num_ws=3, row_growth=4.0, ridge=0.0)
    # 1, 2, 4 scaled to mean 1, over three rows
    for row, share in enumerate((1 / 7, 2 / 7, 4 / 7)):
        rows = [(0.0, 0.0)] * 3
        rows[row] = (1.0, -1.0)
        assert prior(offsets(*rows)).tolist() == pytest.approx([share])
    with pytest.raises(ValueError, match="row_growth came as 0"):
        losses.LossWeights(row_growth=0.0)


def test_code_prior_survives_codes_that_fill_no_space():
    flat = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 4)
    prior = losses.CodePrior(flat, num_ws=1)
    inside, outside = torch.ones(1, 1, 4), torch.tensor([[[1.0, -1.0, 1.0, -1.0]]])
    assert torch.isfinite(prior(outside)).all()
    assert prior(outside) > 50 * prior(inside)


def test_code_prior_knows_the_generators_own_codes():
    G = generator()
    with torch.no_grad():
        z = torch.randn(500, 16, generator=torch.Generator().manual_seed(3))
        draws = G.mapping(z)
    prior = losses.CodePrior.of(G)
    assert prior(draws).mean().item() == pytest.approx(1.0, abs=0.15)
    assert torch.equal(prior(draws), losses.CodePrior.of(G)(draws))
    spread = (draws - draws.mean(0)).square().mean().sqrt()
    noise = torch.randn(draws.shape, generator=torch.Generator().manual_seed(4)) * spread
    assert prior(draws.mean(0) + noise).mean() > 2  # as far from the mean, but in all directions
    exact = prior(draws)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # under which the losses are computed
        assert torch.equal(prior(draws), exact) and exact.dtype == torch.float32


@pytest.mark.parametrize("loss", [losses.PerceptualLoss, losses.IdentityLoss])
def test_network_losses_vanish_only_on_equal_images(net, loss):
    a, b = images(0), torch.ones(2, 3, 128, 128)
    assert loss(net)(a, a.clone()).abs().max() < 1e-6
    assert loss(net)(a, b).shape == (2,)
    assert loss(net)(a, b).min() > 1e-5


class Stub:
    """Features and identities given by hand."""

    def features(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [image[:, :2, :1, :1], image[:, 1:, :1, :1]]

    def identity(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(image[:, :2, 0, 0], dim=1)


def test_perceptual_and_identity_by_hand():
    a, b = torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 1, 1)
    a[0, 0], b[0, 1] = 5.0, 0.1  # orthogonal in the first scale, whatever the lengths
    first = 2.0  # |(1, 0) - (0, 1)|²
    second = 1.0  # |(0, 0) - (1, 0)|²
    assert losses.PerceptualLoss(Stub())(a, b).tolist() == pytest.approx([(first + second) / 2])
    assert losses.IdentityLoss(Stub())(a, b).tolist() == pytest.approx([1.0])


def test_gradient_reaches_the_image_and_not_the_target(net):
    a, b = images(0).requires_grad_(), images(1).requires_grad_()
    total = losses.PerceptualLoss(net)(a, b).sum() + losses.IdentityLoss(net)(a, b).sum()
    total.backward()
    assert a.grad.abs().max() > 0
    assert b.grad is None


def test_parsing_loss_is_cross_entropy_of_the_right_class():
    class Parser:
        def __call__(self, image):
            logits = torch.zeros(1, 19, 2, 2)
            logits[0, 13] = 10.0
            return type("Output", (), {"parsing": logits})()

    loss = losses.ParsingLoss(Parser())
    hair, skin = torch.full((1, 4, 4), 13), torch.full((1, 4, 4), 1)
    log_sum = math.log(math.exp(10) + 18)
    assert loss(images(batch=1), hair).item() == pytest.approx(log_sum - 10, abs=1e-5)
    assert loss(images(batch=1), skin).item() == pytest.approx(log_sum, abs=1e-5)


def test_attribute_loss_asks_for_what_is_named_alone():
    class Reader:
        reads = torch.tensor([True, True, True])

        def attributes(self, image):
            return torch.tensor([[2.0, -2.0, 9.0], [2.0, -2.0, 9.0], [2.0, -2.0, 9.0]])

    claims = torch.tensor([[1, 0, -1], [0, -1, -1], [-1, -1, -1]], dtype=torch.int8)
    found = losses.AttributeLoss(Reader())(images(batch=3), claims)
    right, wrong = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert found.tolist() == pytest.approx([right, wrong, 0.0])


def test_what_the_loss_net_does_not_read_is_not_asked(net):
    claims = torch.full((2, len(ATTRIBUTES)), -1, dtype=torch.int8)
    claims[:, ATTRIBUTES.index("Bald")] = 1
    loss, image = losses.AttributeLoss(net), images(0)
    before = loss(image, claims)
    claims[:, ATTRIBUTES.index("Suit")] = 1
    assert torch.equal(loss(image, claims), before) and before.min() > 0


def test_attributes_are_those_of_the_whole_reading(net):
    image = images(0).requires_grad_()
    read = net.attributes(image)
    assert torch.equal(read, net(image).attributes)
    claims = torch.ones(read.shape, dtype=torch.int8)
    losses.AttributeLoss(net)(image, claims).sum().backward()
    assert image.grad.abs().max() > 0


def test_shared_features_compute_once_and_change_nothing(net):
    a, b = images(0), images(1)
    perceptual, identity = losses.PerceptualLoss(net), losses.IdentityLoss(net)
    alone = perceptual(a, b), identity(a, b)
    calls = []
    handle = net.stages[0].register_forward_pre_hook(lambda m, args: calls.append(1))
    with losses.SharedFeatures(net):
        together = perceptual(a, b), identity(a, b)
    handle.remove()
    assert len(calls) == 2
    assert all(torch.equal(x, y) for x, y in zip(alone, together, strict=True))
    assert "features" not in vars(net)


def test_shares_go_from_text_to_structure():
    steps = torch.tensor([0, 10, 20])
    text, structure = losses.supervision_shares(steps, 21, "linear")
    assert text.tolist() == pytest.approx([0.75, 0.5, 0.25])
    assert torch.allclose(text + structure, torch.ones(3))
    text, _ = losses.supervision_shares(steps, 21, "uniform")
    assert text.tolist() == [0.5] * 3
    with pytest.raises(ValueError, match="'cosine'"):
        losses.supervision_shares(steps, 21, "cosine")


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="-1"):
        losses.LossWeights(l2=-1.0)


def test_all_losses_stay_on_the_device(net, monkeypatch):
    monkeypatch.setattr(torch, "cov", lambda x: x @ x.T)  # it looks at numbers
    G, net = generator(), copy.deepcopy(net)
    with fake_cuda():
        on_cuda(G), on_cuda(net)
        image, target = (torch.empty(2, 3, 128, 128, device="cuda") for _ in range(2))
        mask = torch.zeros(2, 128, 128, dtype=torch.uint8, device="cuda")
        claims = torch.zeros(2, len(ATTRIBUTES), dtype=torch.int8, device="cuda")
        found = [
            losses.l2_loss(image, target),
            losses.parts_loss(image, target, mask),
            losses.PerceptualLoss(net)(image, target),
            losses.IdentityLoss(net)(image, target),
            losses.ParsingLoss(net)(image, mask),
            losses.AttributeLoss(net)(image, claims),
            losses.CodePrior.of(G, count=64)(torch.empty(2, 12, 16, device="cuda")),
            *losses.supervision_shares(torch.empty(2, device="cuda"), 10, "linear"),
            *losses.supervision_shares(torch.empty(2, device="cuda"), 10, "uniform"),
        ]
    assert {(value.device.type, value.shape) for value in found} == {("cuda", (2,))}
