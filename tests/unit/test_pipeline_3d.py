"""The pipeline with an EG3D generator: one call, any view, a prior shared with another model."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import (
    controlnet,
    face_mask,
    mapping_network,
    pipeline,
    style_modulation,
    tiny_eg3d,
)

from dmgi_lib import DMGIPipeline, presets, weight_folder
from dmgi_lib.generators.eg3d.cameras import look_at
from dmgi_lib.mask_camera import estimate_camera
from dmgi_lib.presets import MINI_3D
from dmgi_lib.weight_folder import load_part, shares_prior, write_model_index

PROMPT = "a smiling young woman with blond hair"
OWN = ("mapping_network", "style_modulation", "generator")


def heads(**options) -> DMGIPipeline:
    m, t = mapping_network(num_ws=6), style_modulation(num_ws=6)
    torch.manual_seed(7)
    for fc in (m.fc, t.stacks["local"][-1], t.stacks["averaged"][-1]):
        torch.nn.init.normal_(fc.weight, std=0.2)
    G = tiny_eg3d(w_dim=16, pose_range={"yaw": [-45, 45], "pitch": [-20, 20]})
    own = {"mapping_network": m, "style_modulation": t, "generator": G}
    return pipeline(**own, detail_psi=MINI_3D.detail_psi, **options)


@pytest.fixture(scope="module")
def pipe() -> DMGIPipeline:
    torch.set_num_threads(1)
    return heads()


@pytest.fixture(scope="module")
def flat() -> DMGIPipeline:
    return pipeline()


def drawn(pipe, **options):
    return pipe(PROMPT, mask=face_mask(), exit_step=0, output_type="pt", **options)


def test_a_call_is_seen_from_the_camera_that_the_mask_suggests(pipe):
    out = drawn(pipe)
    assert out.images.shape == (1, 3, 16, 16) and out.latents.shape == (1, 6, 16)
    torch.testing.assert_close(out.camera, estimate_camera([face_mask()]))
    seen = pipe.generator.synthesis(out.latents, out.camera).image
    torch.testing.assert_close(out.images, seen)
    turned = face_mask().roll(10, 1)  # another camera for another mask
    both = pipe(PROMPT, mask=[face_mask(), turned], exit_step=0, num_images_per_prompt=2)
    expected = estimate_camera([face_mask(), face_mask(), turned, turned])
    torch.testing.assert_close(both.camera, expected)


def test_a_camera_may_be_given(pipe):
    given = look_at([30.0], 5.0)
    out = drawn(pipe, camera=given)
    torch.testing.assert_close(out.camera, given)
    torch.testing.assert_close(drawn(pipe, camera=(30, 5)).images, out.images)
    assert torch.equal(out.latents, drawn(pipe).latents)
    assert (out.images - drawn(pipe).images).abs().max() > 1e-3
    with pytest.raises(ValueError, match="2 cameras came for 1 images"):
        drawn(pipe, camera=look_at([0.0, 1.0], 0.0))
    with pytest.warns(UserWarning, match="yaw came as 80"):
        drawn(pipe, camera=(80, 0))


def test_a_scribble_is_seen_from_the_front():
    m = mapping_network(num_ws=6, seed=8)
    both = heads(controlnet_scribble=controlnet(seed=9), mapping_network_scribble=m)
    strokes = np.zeros((128, 128), bool)
    strokes[40:42, 30:90] = True
    out = both(PROMPT, scribble=strokes, exit_step=0)
    torch.testing.assert_close(out.camera, look_at([0.0], 0.0))


def test_codes_are_rendered_turned_and_meshed(pipe, tmp_path):
    codes = drawn(pipe).latents
    views = pipe.render(codes, yaw=[-30, 0, 30], pitch=0)
    assert [v.size for v in views] == [(16, 16)] * 3
    (front,) = pipe.render(codes[0], camera=look_at(0.0, 0.0))
    assert np.array_equal(front, views[1])
    for output in ("depth", "normals"):
        assert not np.array_equal(pipe.render(codes, output=output)[0], front)
    frames = pipe.turntable(codes, frames=4, yaw=(-30, 30), path=tmp_path / "a.webp")
    assert np.array_equal(frames[0], views[0]) and (tmp_path / "a.webp").is_file()
    with pytest.raises(ValueError, match="expected one ending in .glb"):
        pipe.mesh(codes, path="head.txt")


def test_pictures_have_no_views(flat):
    codes = drawn(flat).latents
    assert drawn(flat).camera is None
    for call in (
        lambda: flat.render(codes),
        lambda: flat.turntable(codes),
        lambda: flat.mesh(codes),
        lambda: drawn(flat, camera=(0, 0)),
    ):
        with pytest.raises(ValueError, match='StyleGAN2Generator.*from_pretrained."mini-3d"'):
            call()


def test_codes_of_the_other_generator_are_refused(pipe, flat):
    with pytest.raises(ValueError, match=r"latents came as \(1, 12, 16\).* floats \(B, 6, 16\)"):
        pipe.render(drawn(flat).latents)


@pytest.fixture
def shared(pipe, flat, tmp_path):
    """A folder with M, T and G alone, inside of a model that draws pictures."""
    flat.save_pretrained(tmp_path / "flat")
    pipe.save_pretrained(tmp_path / "whole")
    folder = tmp_path / "flat" / "3d"
    for name in OWN:
        shutil.copytree(tmp_path / "whole" / name, folder / name)
    return folder


def test_a_folder_shares_the_prior_of_the_one_it_lies_in(shared, pipe, tmp_path):
    alone = shutil.copytree(shared, tmp_path / "alone")
    with pytest.raises(FileNotFoundError, match="tokenizer is missing"):
        write_model_index(alone)
    weight_folder.main(shared)
    assert json.loads((shared / "model_index.json").read_text())["unet"] == [None, None]
    assert write_model_index(shared)["generator"] == ["dmgi_lib", "TriPlaneGenerator"]
    again = DMGIPipeline.from_pretrained(shared)
    torch.testing.assert_close(drawn(again).images, drawn(pipe).images)
    assert again.mapping_network_scribble is None
    again.save_pretrained(tmp_path / "copy")  # stands alone
    assert not shares_prior(tmp_path / "copy")
    copy = DMGIPipeline.from_pretrained(tmp_path / "copy")
    torch.testing.assert_close(drawn(copy).images, drawn(pipe).images)
    other = tiny_eg3d(w_dim=16, img_resolution=32)
    assert DMGIPipeline.from_pretrained(shared, generator=other).generator is other


def test_parts_of_the_world_are_shared_and_those_of_g_are_not(shared, tmp_path):
    write_model_index(shared)
    shutil.copytree(shared / "generator", tmp_path / "flat" / "loss_net")
    assert load_part(shared, "loss_net") is not None
    assert load_part(tmp_path / "whole", "loss_net") is None
    shutil.copytree(shared / "mapping_network", tmp_path / "flat" / "mapping_network_scribble")
    assert load_part(shared, "mapping_network_scribble") is None


def test_a_preset_that_is_not_trained_names_the_command(tmp_path, monkeypatch):
    lacking = replace(MINI_3D, folder=tmp_path / "none")
    monkeypatch.setitem(presets.PRESETS, "mini-3d", lacking)
    with pytest.raises(FileNotFoundError, match=r"'mini-3d' are not there.*trainer eg3d"):
        DMGIPipeline.from_pretrained("mini-3d")
