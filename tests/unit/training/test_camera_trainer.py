"""M and T for a generator of heads: I' is seen by the sample's camera."""

import pytest
import torch
from tiny_models import generator, tiny_eg3d
from tiny_training import CONFIG, loop
from tiny_views import write_views

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.generators.eg3d.cameras import mirrored_camera
from dmgi_lib.training.features import OnlineFeatures
from dmgi_lib.training.supervision import StageConfig
from dmgi_lib.training.trainer import StageTrainer


def test_heads_are_drawn_by_the_cameras_of_the_samples(pipe, loss_net, tmp_path):
    torch.manual_seed(0)
    heads = FaceDataset(write_views(tmp_path / "train", 4, 1).parent)
    features = OnlineFeatures(CONFIG, pipe, heads)
    G = tiny_eg3d(c_dim=0)
    config = StageConfig(1, held_out=1, precision="fp32")
    trainer = StageTrainer(config, features, heads, G, loss_net)
    batch = features.batch(torch.tensor([1, 5]), torch.zeros(2, dtype=torch.long))
    assert batch.sample.tolist() == [1, 1] and batch.mirrored.tolist() == [False, True]
    w = G.mapping(torch.randn(1, 8)).expand(2, -1, -1)
    drawn = trainer.draw(w, batch)
    assert drawn.shape == (2, 3, 128, 128)
    c = heads.cameras[1]
    with torch.no_grad():
        image = G.synthesis(w, torch.stack([c, mirrored_camera(c)])).image
    wanted = torch.nn.functional.interpolate(image, (128, 128), mode="bilinear", antialias=True)
    torch.testing.assert_close(drawn, wanted)
    assert (drawn[0] - drawn[1]).abs().max() > 1e-4
    before = [p.detach().clone() for p in trainer.networks["mapping_network"].parameters()]
    result = trainer.fit(loop(tmp_path / "run", max_steps=1, batch_size=2))
    after = result.ema["mapping_network"].parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_heads_cannot_be_learnt_without_cameras(cache, dataset, loss_net):
    config = StageConfig(1, held_out=2)
    with pytest.raises(ValueError, match="holds samples without a camera"):
        StageTrainer(config, cache, dataset, tiny_eg3d(c_dim=0), loss_net)
    assert StageTrainer(config, cache, dataset, generator(), loss_net).cameras is None
