"""Critics: networks that learn, beside M and T, to tell what these make from what is real.

A `ParsingDiscriminator` compares I' with photographs, so that sharp hair and patterned cloth are
worth more than their mean. `CodeCritic` compares rows of w_t with codes that G draws, as e4e does
(arXiv 2102.02766). Both have lazy R1 (StyleGAN2, App. B). The paper's available sources name
neither: our choice, off by default, see `losses.LossWeights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import gather, reduce
from torch import Tensor, nn

from dmgi_lib.training.losses import LossWeights, drawn_codes
from dmgi_lib.training.parsing_discriminator import ParsingDiscriminator

R1_GAMMA, R1_INTERVAL = 10.0, 16  # e4e's; an interval of steps
POOL = 50  # codes that a critic may see again, e4e's


def adversarial_losses(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Non-saturating loss of a discriminator, mean over samples and places."""
    return F.softplus(logits_fake).mean() + F.softplus(-logits_real).mean()


class CodeCritic(nn.Module):
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

    def forward(self, w: Tensor) -> Tensor:
        """(B, …, w_dim) → logits (B, P), one a row, positive for real."""
        logits: Tensor = self.layers(w).float().flatten(1)
        return logits

    def passing(self, w: Tensor) -> Tensor:
        """How far codes (B, num_ws, w_dim) are from passing for G's own, (B,)."""
        return F.softplus(-self(w)).mean(1)

    def telling(self, real: Tensor, made: Tensor) -> Tensor:
        """The critic's own loss."""
        return adversarial_losses(self(real), self(made))

    def examples(self, w: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Real and made (B', w_dim) from a batch of B' in all processes; rng is alike in them."""
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


Critic = ParsingDiscriminator | CodeCritic


def critics_for(weights: LossWeights, G: Any, loss_net: Any, seed: int) -> dict[str, Critic]:
    """New critics that have a weight, by its name; they draw nothing from the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critics: dict[str, Critic] = {}
        if weights.adversarial > 0:
            D = critics["adversarial"] = ParsingDiscriminator(loss_net.config.channels)
            D.begin_as(loss_net)
        if weights.code_critic > 0:
            critics["code_critic"] = CodeCritic(G)
    for critic in critics.values():
        critic.requires_grad_(False).to(G.mean_latent.device)
    return critics


def judged(
    critics: Mapping[str, Critic], w: Tensor, image: Tensor, mask: Tensor
) -> dict[str, Tensor]:
    """How far w_t (B, num_ws, w_dim) and I' (B, 3, H, W) are from passing for real, (B,) each."""
    shown = {"adversarial": (image, mask), "code_critic": (w,)}
    return {name: critic.passing(*shown[name]) for name, critic in critics.items()}


def teach(
    critic: Critic,
    optimizer: torch.optim.Optimizer,
    examples: tuple[Tensor, ...],
    step: int,
    accelerator: Accelerator,
    precision: torch.autocast,
) -> dict[str, Tensor]:
    """One step of a critic, gradients averaged over the processes; what is to be logged.

    Args:
        examples: real, made, and for a `ParsingDiscriminator` the real ones' masks.
        step: R1 is added where R1_INTERVAL divides it, as many times heavier.
        precision: of the logits; R1 is computed in fp32.
    """
    critic.requires_grad_(True)
    with precision:
        loss = critic.telling(*examples)
    log = {"loss": loss.detach()}
    if step % R1_INTERVAL == 0:
        penalty = r1_penalty(critic, examples[0])
        log["r1"] = penalty.detach()
        loss = loss + R1_GAMMA / 2 * R1_INTERVAL * penalty
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    if accelerator.num_processes > 1:
        for parameter in critic.parameters():
            if parameter.grad is not None:
                parameter.grad = reduce(parameter.grad, "mean")
    optimizer.step()
    critic.requires_grad_(False)  # it is M and T that learn from it
    return log


def r1_penalty(critic: nn.Module, real: Tensor) -> Tensor:
    """E ‖∇ D(real)‖², D being the mean over a sample's logits."""
    real = real.detach().float().requires_grad_(True)
    with torch.autocast(real.device.type, enabled=False):
        logits = critic(real).mean(1).sum()
        (gradient,) = torch.autograd.grad(logits, real, create_graph=True)
    return gradient.flatten(1).square().sum(1).mean()
