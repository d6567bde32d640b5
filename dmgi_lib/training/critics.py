"""Critics: networks that learn, beside M and T, to tell what these make from what is real.

`ImageCritic` compares I' with photographs by the loss net's features, so that sharp hair and
patterned cloth are worth more than their mean; G's own discriminator stays with what trained G and
does not ship. `CodeCritic` compares rows of w_t with codes that G draws, as e4e does (arXiv
2102.02766). Both have the non-saturating loss with lazy R1 (StyleGAN2, App. B). The paper's
available sources name neither: our choice, off by default, see `losses.LossWeights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import gather, reduce
from torch import Tensor, nn

from dmgi_lib.training.feature_discriminator import FeatureDiscriminator, adversarial_losses
from dmgi_lib.training.losses import LossWeights, drawn_codes

R1_GAMMA, R1_INTERVAL = 10.0, 16  # e4e's; an interval of steps
POOL = 50  # codes that a critic may see again, e4e's


class Critic(nn.Module):
    """Called, it says how far I' and w_t, one number a sample, are from passing for real."""

    learning_rate: float

    def logits(self, shown: Tensor) -> Tensor:
        """What it is shown (B, …) → (B, P), positive for real."""
        raise NotImplementedError

    def forward(self, w: Tensor, image: Tensor) -> Tensor:
        """w_t (B, num_ws, w_dim), I' (B, 3, H, W) in [-1, 1] → (B,)."""
        raise NotImplementedError

    def examples(
        self, w: Tensor, image: Tensor, photographs: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What it learns from: real ones, and made ones without their graph.

        Args:
            photographs: I, (B, 3, H, W) in [-1, 1].
            rng: CPU generator, the same in all processes.
        """
        raise NotImplementedError


class ImageCritic(Critic):
    """Heads on the frozen loss net's features, all but the finest.

    Args:
        loss_net: a `recognizers.Recognizer`; its weights are not the critic's.
    """

    learning_rate = 2e-4

    def __init__(self, loss_net: Any) -> None:
        super().__init__()
        self.heads = FeatureDiscriminator(loss_net.config.channels[1:])
        self._features = lambda image: loss_net.features(image)[1:]

    def logits(self, shown: Tensor) -> Tensor:
        logits: Tensor = self.heads(self._features(shown))
        return logits

    def forward(self, w: Tensor, image: Tensor) -> Tensor:
        return F.softplus(-self.logits(image)).mean(1)

    def examples(
        self, w: Tensor, image: Tensor, photographs: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return photographs, image.detach()


class CodeCritic(Critic):
    """A perceptron of four layers on one row of a code.

    It learns from one row of each w_t, drawn at random, half of them from a pool of earlier ones,
    which starts at w_avg as M does; all rows of w_t have to pass.
    """

    learning_rate = 2e-5
    pool: Tensor

    def __init__(self, G: Any) -> None:
        super().__init__()
        width = len(G.mean_latent)
        hidden = [nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(0.2)) for _ in range(3)]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 1))
        self.register_buffer("pool", G.mean_latent.detach().float().repeat(POOL, 1))
        self._draw = lambda count, rng: drawn_codes(G, count, rng)

    def logits(self, shown: Tensor) -> Tensor:
        logits: Tensor = self.layers(shown).float().flatten(1)
        return logits

    def forward(self, w: Tensor, image: Tensor) -> Tensor:
        return F.softplus(-self.logits(w)).mean(1)

    def examples(
        self, w: Tensor, image: Tensor, photographs: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        every = gather(w.detach().float().contiguous())  # pools stay alike in all processes
        every = torch.stack(every.chunk(len(every) // len(w)), 1).flatten(0, 1)
        rows = torch.randint(every.shape[1], (len(every),), generator=rng).to(w.device)
        made = every[torch.arange(len(every), device=w.device), rows]
        places = torch.randperm(POOL, generator=rng)[: len(made)].to(w.device)
        swapped = (torch.rand(len(places), 1, generator=rng) < 0.5).to(w.device)
        new, old = made[: len(places)], self.pool[places]
        self.pool.index_copy_(0, places, torch.where(swapped, new, old))
        made = torch.cat([torch.where(swapped, old, new), made[len(places) :]])
        return self._draw(len(every), rng), made


def critics_for(weights: LossWeights, G: Any, loss_net: Any, seed: int) -> dict[str, Critic]:
    """New critics that have a weight, by its name; they draw nothing from the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critics: dict[str, Critic] = {}
        if weights.adversarial > 0:
            critics["adversarial"] = ImageCritic(loss_net)
        if weights.code_critic > 0:
            critics["code_critic"] = CodeCritic(G)
    for critic in critics.values():
        critic.requires_grad_(False).to(G.mean_latent.device)
    return critics


def optimizers_for(critics: Mapping[str, Critic]) -> dict[str, torch.optim.Optimizer]:
    """Adam as for StyleGAN2's discriminator, by name; the loop warms it up and cools it down."""
    return {
        name: torch.optim.Adam(critic.parameters(), critic.learning_rate, (0.0, 0.99))
        for name, critic in critics.items()
    }


def teach(
    critic: Critic,
    optimizer: torch.optim.Optimizer,
    real: Tensor,
    made: Tensor,
    step: int,
    accelerator: Accelerator,
    precision: torch.autocast,
) -> dict[str, Tensor]:
    """One step of a critic, gradients averaged over the processes; what is to be logged.

    Args:
        real, made: from `Critic.examples`.
        step: R1 is added where R1_INTERVAL divides it, as many times heavier.
        precision: of the logits; R1 is computed in fp32.
    """
    critic.requires_grad_(True)
    with precision:
        loss = adversarial_losses(critic.logits(real), critic.logits(made))
    log = {"loss": loss.detach()}
    if step % R1_INTERVAL == 0:
        penalty = r1_penalty(critic, real)
        log["r1"] = penalty.detach()
        loss = loss + R1_GAMMA / 2 * R1_INTERVAL * penalty
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    if accelerator.num_processes > 1:
        for parameter in critic.parameters():
            parameter.grad = reduce(parameter.grad, "mean")
    optimizer.step()
    critic.requires_grad_(False)  # it is M and T that learn from it
    return log


def r1_penalty(critic: Critic, real: Tensor) -> Tensor:
    """E ‖∇ D(real)‖², D being the mean over a sample's logits."""
    real = real.detach().float().requires_grad_(True)
    with torch.autocast(real.device.type, enabled=False):
        logits = critic.logits(real).mean(1).sum()
        (gradient,) = torch.autograd.grad(logits, real, create_graph=True)
    return gradient.flatten(1).square().sum(1).mean()
