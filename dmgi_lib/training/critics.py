"""Critics: networks that learn, beside M and T, to tell what these make from what is real.

`ImageCritic` compares I' with photographs by the loss net's features, so that sharp hair and
patterned cloth are worth more than their mean; G's own discriminator stays with what trained G and
does not ship. `CodeCritic` compares rows of w_t with codes that G draws, as e4e does (arXiv
2102.02766). Both have the non-saturating loss with lazy R1 (StyleGAN2, App. B). The paper's
available sources name neither: our choice, off by default, see `losses.LossWeights`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import gather, reduce
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dmgi_lib.training.losses import LossWeights, drawn_codes

R1_GAMMA, R1_INTERVAL = 10.0, 16  # e4e's; an interval of steps
POOL = 50  # codes that a critic may see again, e4e's


class FeatureDiscriminator(nn.Module):
    """Heads that tell real from made by a frozen network's features (arXiv 2111.01007, Sec. 3).

    One a scale: spectrally normalised convolutions to the coarsest size, a logit a place. What
    starts from pixels needs very many pictures before it knows what an eye is; the loss net knows.

    Args:
        channels: of the features, finest first, each half the size of the one before
        width:    of the heads
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 96, 128), width: int = 64) -> None:
        super().__init__()
        self.heads = nn.ModuleList()
        for level, count in enumerate(channels):
            layers: list[nn.Module] = [spectral_norm(nn.Conv2d(count, width, 1))]
            for _ in range(len(channels) - 1 - level):
                layers += [nn.LeakyReLU(0.2), spectral_norm(nn.Conv2d(width, width, 4, 2, 1))]
            layers += [nn.LeakyReLU(0.2), spectral_norm(nn.Conv2d(width, width, 3, padding=1))]
            layers += [nn.LeakyReLU(0.2), spectral_norm(nn.Conv2d(width, 1, 1))]
            self.heads.append(nn.Sequential(*layers))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features (B, C, S, S), one a head → logits (B, heads × places), positive for real."""
        pairs = zip(self.heads, features, strict=True)
        return torch.cat([head(f).float().flatten(1) for head, f in pairs], dim=1)


def adversarial_losses(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Non-saturating loss of a discriminator, mean over samples and places."""
    return F.softplus(logits_fake).mean() + F.softplus(-logits_real).mean()


class ImageCritic(nn.Module):
    """Heads on the frozen loss net's features.

    Args:
        loss_net: a `recognizers.Recognizer`; its weights are not the critic's.
        finest: the finest that are read; 0 are those that see single hairs
    """

    learning_rate = 2e-4

    def __init__(self, loss_net: Any, finest: int = 1) -> None:
        super().__init__()
        self.heads = FeatureDiscriminator(loss_net.config.channels[finest:])
        self._features = lambda image: loss_net.features(image)[finest:]

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → logits (B, P), positive for real."""
        logits: Tensor = self.heads(self._features(image))
        return logits

    def examples(
        self, w: Tensor, image: Tensor, photographs: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Real ones to learn from, and made ones without their graph."""
        return photographs, image.detach()


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

    def examples(
        self, w: Tensor, image: Tensor, photographs: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """(B', w_dim) each, B' being the batch of all processes; rng, of the CPU, is the same."""
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


Critic = ImageCritic | CodeCritic


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


def judged(critics: Mapping[str, Critic], w: Tensor, image: Tensor) -> dict[str, Tensor]:
    """How far w_t (B, num_ws, w_dim) and I' (B, 3, H, W) are from passing for real, (B,) each."""
    shown = {"adversarial": image, "code_critic": w}
    return {name: F.softplus(-critic(shown[name])).mean(1) for name, critic in critics.items()}


def teach(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    real: Tensor,
    made: Tensor,
    step: int,
    accelerator: Accelerator,
    precision: torch.autocast,
) -> dict[str, Tensor]:
    """One step of a critic, gradients averaged over the processes; what is to be logged.

    Args:
        real, made: from the critic's `examples`.
        step: R1 is added where R1_INTERVAL divides it, as many times heavier.
        precision: of the logits; R1 is computed in fp32.
    """
    critic.requires_grad_(True)
    with precision:
        loss = adversarial_losses(critic(real), critic(made))
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


def r1_penalty(critic: nn.Module, real: Tensor) -> Tensor:
    """E ‖∇ D(real)‖², D being the mean over a sample's logits."""
    real = real.detach().float().requires_grad_(True)
    with torch.autocast(real.device.type, enabled=False):
        logits = critic(real).mean(1).sum()
        (gradient,) = torch.autograd.grad(logits, real, create_graph=True)
    return gradient.flatten(1).square().sum(1).mean()
