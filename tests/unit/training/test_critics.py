"""Critics of M and T: what they learn from, what they say, and that a resumed run repeats them."""

import copy

import pytest
import torch
from tiny_devices import fake_cuda, on_cuda
from tiny_models import generator
from tiny_training import loop, trainer
from torch import nn

from dmgi_lib.devices import autocast
from dmgi_lib.training import critics
from dmgi_lib.training.critics import (
    POOL,
    CodeCritic,
    adversarial_losses,
    critics_for,
    judged,
    teach,
)
from dmgi_lib.training.loop import accelerator_for
from dmgi_lib.training.losses import LossWeights
from dmgi_lib.training.run_files import read_log

WEIGHTS = LossWeights(adversarial=0.1, code_critic=0.1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def G():
    return generator().requires_grad_(False)


@pytest.fixture
def frozen_net(loss_net):
    net = copy.deepcopy(loss_net).eval().requires_grad_(False)
    for parameter in net.parameters():  # so that a change of the image reaches every output
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, generator=seeded())
    return net


class Linear(nn.Module):
    """Logits 3x and x of each number of a sample."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(3.0))

    def forward(self, shown):
        return torch.cat([self.slope * shown, shown], dim=1)


def test_r1_by_hand():
    real = torch.randn(4, 2)
    found = critics.r1_penalty(Linear(), real)  # the mean of (3a, 3b, a, b): a and b count 1 each
    assert found.item() == pytest.approx(2.0)
    (slope,) = torch.autograd.grad(found, [*Linear().parameters()], allow_unused=True)
    assert slope is None
    critic = Linear()
    (slope,) = torch.autograd.grad(critics.r1_penalty(critic, real), critic.parameters())
    assert slope.item() == pytest.approx(1.0)  # 2 ((s + 1) / 4)², by s


def test_none_is_made_without_a_weight_and_none_touches_the_global_generator(G, frozen_net):
    assert not critics_for(LossWeights(), G, frozen_net, 0)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    made = critics_for(WEIGHTS, G, frozen_net, 0)
    assert torch.equal(torch.rand(3), expected) and set(made) == {"adversarial", "code_critic"}
    again = critics_for(WEIGHTS, G, frozen_net, 0)["code_critic"].state_dict()
    other = critics_for(WEIGHTS, G, frozen_net, 1)["code_critic"].state_dict()
    state = made["code_critic"].state_dict()
    assert torch.equal(state["layers.3.weight"], again["layers.3.weight"])
    assert not torch.equal(state["layers.3.weight"], other["layers.3.weight"])
    begun, read = made["adversarial"].state_dict(), frozen_net.state_dict()
    name = "stages.0.0.0.weight"
    assert torch.equal(begun[name], read[name]) and begun[name].data_ptr() != read[name].data_ptr()


def test_critics_teach_pictures_and_codes_and_learn_apart(G, frozen_net):
    w = torch.randn(4, 12, 16, generator=seeded()).requires_grad_()
    image = torch.rand(4, 3, 128, 128, generator=seeded()).requires_grad_()
    mask = torch.zeros(4, 128, 128, dtype=torch.long)
    made = critics_for(WEIGHTS, G, frozen_net, 0)
    for name, asked, other in (("adversarial", image, w), ("code_critic", w, image)):
        critic = made[name]
        (found,) = judged({name: critic}, w, image, mask).values()
        assert found.shape == (4,)
        (gradient,) = torch.autograd.grad(found.sum(), asked, retain_graph=True)
        assert gradient.flatten(1).abs().sum(1).min() > 0
        assert torch.autograd.grad(found.sum(), other, allow_unused=True) == (None,)
        assert not any(p.requires_grad for p in critic.parameters())


@pytest.mark.parametrize("name", ["adversarial", "code_critic"])
def test_a_critic_learns_to_tell(G, frozen_net, name):
    critic = critics_for(WEIGHTS, G, frozen_net, 0)[name]
    optimizer = torch.optim.Adam(critic.parameters(), 5e-3, (0.0, 0.99))
    shape, steps = ((8, 3, 128, 128), 16) if name == "adversarial" else ((8, 16), 60)
    masks = [torch.zeros(8, 128, 128, dtype=torch.long)] if name == "adversarial" else []
    accelerator, precision = accelerator_for("cpu"), autocast("cpu", enabled=False)
    logs = []
    for turn in range(steps):
        real = torch.rand(shape, generator=seeded(turn))
        logs.append(teach(critic, optimizer, (real, -real, *masks), 1, accelerator, precision))
    assert logs[-1]["loss"] < 0.9 * logs[0]["loss"]
    assert critic(real).mean() > critic(-real).mean()
    assert not any("r1" in log for log in logs)
    log = teach(critic, optimizer, (real, -real, *masks), 16, accelerator, precision)
    assert log["r1"] > 0


def test_a_code_critic_sees_one_row_of_each_code_and_earlier_ones(G):
    critic = CodeCritic(G)
    assert torch.equal(critic.pool, G.mean_latent.expand(POOL, -1))
    w = torch.randn(64, 12, 16, generator=seeded())
    real, made = critic.examples(w, seeded())
    assert real.shape == made.shape == (64, 16)
    rows = w.flatten(0, 1)
    new = (made[:, None] == rows).all(2).any(1)
    mean = (made == G.mean_latent).all(1)
    assert (new | mean).all() and 10 < mean.sum() < 40 and new[POOL:].all()
    kept = (critic.pool[:, None] == rows).all(2).any(1)
    assert kept.sum() == mean.sum()  # as many came in as went out
    assert (critic.examples(w, seeded(1))[0] != real).any()


def test_codes_of_several_processes_come_in_the_order_of_one(G, monkeypatch):
    w = torch.arange(8.0).view(8, 1, 1).expand(8, 12, 16)
    one = CodeCritic(G).examples(w, seeded())
    monkeypatch.setattr(critics, "gather", lambda own: torch.cat([w[0::2], w[1::2]]))
    for rank in (0, 1):
        critic = CodeCritic(G)
        several = critic.examples(w[rank::2], seeded())
        assert all(torch.equal(a, b) for a, b in zip(one, several, strict=True))


def test_a_resumed_run_repeats_its_critics(cache, dataset, loss_net, tmp_path):
    def fit(name, steps):
        made = trainer(1, cache, dataset, loss_net, weights=WEIGHTS, mixing=0.5)
        return made.fit(loop(tmp_path / name, max_steps=steps))

    fit("whole", 4)
    fit("cut", 2)
    fit("cut", 4)
    logs = [read_log(tmp_path / name / "log.csv") for name in ("whole", "cut")]
    for log in logs:
        del log["seconds"]
    assert str(logs[0]) == str(logs[1])  # NaN, where a step has no R1, equals nothing
    assert {"adversarial", "code_critic critic loss", "adversarial critic r1"} < set(logs[0])
    states = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("whole", "cut")
    ]
    for name in ("mapping_network", "adversarial", "code_critic"):
        for whole, cut in zip(*(s["modules"][name].values() for s in states), strict=True):
            assert torch.equal(whole, cut)
    assert set(states[0]["ema"]) == {"mapping_network"}


def test_critics_stay_on_the_device(G, frozen_net, monkeypatch):
    made = critics_for(WEIGHTS, G, frozen_net, 0)
    monkeypatch.setattr(critics, "gather", lambda own: own)
    with fake_cuda():
        for network in (G, *made.values()):
            on_cuda(network)
        w, image = (torch.empty(shape, device="cuda") for shape in ((4, 12, 16), (4, 3, 128, 128)))
        mask = torch.zeros(4, 128, 128, dtype=torch.long, device="cuda")
        found = [*judged(made, w, image, mask).values(), *made["code_critic"].examples(w, seeded())]
        found.append(made["adversarial"].telling(image, image, mask))
        assert {x.device.type for x in found} == {"cuda"}


def test_adversarial_loss_by_hand():
    sure = adversarial_losses(torch.tensor([[40.0]]), torch.tensor([[-40.0]]))
    wrong = adversarial_losses(torch.tensor([[-3.0]]), torch.tensor([[5.0]]))
    assert sure < 1e-6
    assert wrong.item() == pytest.approx(8.0, abs=0.06)  # softplus(x) is about x
