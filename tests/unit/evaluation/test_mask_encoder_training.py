"""The mask encoder starts at one face and learns from masks."""

import pytest
import torch
from tiny_models import generator

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.evaluation.baselines import MaskEncoder
from dmgi_lib.evaluation.mask_encoder_training import BaselineTrainer
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.loop import LoopConfig
from dmgi_lib.training.losses import LossWeights


@pytest.fixture
def trainer(tiny_faces) -> BaselineTrainer:
    torch.manual_seed(0)
    G = generator()
    with torch.no_grad():
        G.mean_latent.normal_(generator=torch.Generator().manual_seed(1))
    encoder = MaskEncoder(128, G.num_ws, len(G.mean_latent), (4, 4, 8, 8, 8), 16)
    loss_net = Recognizer(channels=(4, 8, 8, 8, 8))
    return BaselineTrainer(encoder, G, loss_net, FaceDataset(tiny_faces), held_out=3)


def test_starts_at_the_mean_face_and_ignores_nothing_but_the_mask(trainer):
    masks = trainer.dataset.masks[:3]
    start = trainer.encoder(masks)
    assert torch.equal(start, trainer.G.mean_latent.expand_as(start))
    torch.nn.init.normal_(trainer.encoder.mapping.fc.weight)
    codes = trainer.encoder(masks)
    assert not torch.allclose(codes[0], codes[1])


def test_learns_and_repeats_itself(trainer, tmp_path):
    before = trainer.measure(trainer.encoder)
    loop = LoopConfig(tmp_path / "a", minutes=5, batch_size=4, max_steps=6, learning_rate=1e-3)
    result = trainer.fit(loop)
    after = trainer.measure(trainer.encoder)
    assert after["l2"] < before["l2"]
    unused = {"row_growth", "attributes"}  # no term of its own; it hears no caption
    assert set(after) == set(vars(trainer.weights)) - unused
    assert result.step == 6
    grid = trainer.sample_grid(6, {"mask_encoder": trainer.encoder})
    assert grid.shape == (3 * 128, len(trainer.test_rows[:8]) * 128, 3)


def test_a_checkpoint_of_other_losses_is_refused(trainer, tmp_path):
    loop = LoopConfig(tmp_path, minutes=5, batch_size=4, max_steps=1)
    trainer.fit(loop)
    parts = (trainer.encoder, trainer.G, trainer.loss_net, trainer.dataset)
    other = BaselineTrainer(*parts, LossWeights(code_prior=0.01), held_out=3)
    with pytest.raises(ValueError, match="losses.code_prior was 0.06, is 0.01"):
        other.fit(loop)
    assert "code_prior" in other.measure(other.encoder)


def test_held_out_identities_are_never_drawn(trainer):
    identities = trainer.dataset.identities
    seen = set(identities[trainer.train_rows].tolist())
    unseen = set(identities[trainer.test_rows].tolist())
    assert len(unseen) == 3 and not seen & unseen
