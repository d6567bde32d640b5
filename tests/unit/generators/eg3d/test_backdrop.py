"""A picture behind the head: it stands still when the head turns, and released weights lack it."""

import pytest
import torch
from tiny_models import FEW, rng, tiny_eg3d

from dmgi_lib.generators.eg3d import RenderingConfig, TriPlaneGenerator, look_at
from dmgi_lib.generators.eg3d.generator import EG3DOutput

ROUND = {"yaw": [-45, 45], "pitch": [-15, 15]}


def drawn(G: TriPlaneGenerator, yaw: float, **options) -> EG3DOutput:
    with torch.no_grad():
        ws = G.mapping(torch.randn(2, 8, generator=rng()))
        return G.synthesis(ws, look_at(yaw, 0.0).expand(2, -1), **options)


def test_without_anybody_the_wall_is_all_there_is():
    G = tiny_eg3d(c_dim=0, backdrop_resolution=8, third_plane="yz", pose_range=ROUND)
    G.decoder.net[2].bias.data[0] = -1e4  # no density anywhere
    one, other = drawn(G, 0.0), drawn(G, 40.0)
    assert one.image_alpha.shape == one.image_depth.shape == (2, 1, 8, 8)
    assert one.image_alpha.max() == 0
    torch.testing.assert_close(one.image, other.image)
    with torch.no_grad():
        wall = G.wall(G.mapping(torch.randn(2, 8, generator=rng())))
    torch.testing.assert_close(one.image_raw, wall[:, :3])
    assert drawn(G, 0.0, neural_rendering_resolution=4).image_raw.shape == (2, 3, 4, 4)
    G.decoder.net[2].bias.data[0] = 1e4  # nothing but density: the head hides the wall
    full = drawn(G, 0.0)
    assert full.image_alpha.min() > 0.999
    with torch.no_grad():
        G.backdrop.b8.torgb.bias += 5.0
    torch.testing.assert_close(drawn(G, 0.0).image_raw, full.image_raw, atol=1e-4, rtol=0)


def test_official_networks_have_neither():
    G = tiny_eg3d()
    assert G.backdrop is None and not any("backdrop" in name for name in G.state_dict())
    assert G.config.third_plane == "zx" and G.config.pose_range is None
    assert G.wall(torch.zeros(1, G.num_ws, 8)) is None


def test_the_third_plane_is_seen():
    one, other = (drawn(tiny_eg3d(c_dim=0, third_plane=p), 20.0).image for p in ("zx", "yz"))
    assert (one - other).abs().max() > 1e-4


def test_options_survive_a_file(tmp_path):
    G = tiny_eg3d(c_dim=0, backdrop_resolution=8, third_plane="yz", pose_range=ROUND)
    G.save_pretrained(tmp_path)
    again = TriPlaneGenerator.from_pretrained(tmp_path)
    assert again.config.pose_range == ROUND
    torch.testing.assert_close(drawn(again, 10.0).image, drawn(G, 10.0).image)


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="third_plane"):
        tiny_eg3d(third_plane="xx")
    with pytest.raises(ValueError, match="backdrop_resolution came as 32; expected 0 … 16"):
        tiny_eg3d(backdrop_resolution=32)
    white = RenderingConfig(FEW.depth_resolution, white_back=True)
    with pytest.raises(ValueError, match="white_back"):
        tiny_eg3d(backdrop_resolution=8, rendering=white)
