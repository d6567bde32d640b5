import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import controlnet, face_mask, generator, mapping_network, pipeline

from dmgi_lib import DMGIPipeline, paper_components
from dmgi_lib.masks import flip_mask
from dmgi_lib.presets import MINI
from dmgi_lib.weight_folder import check_safetensors, check_weights, write_model_index

PROMPT = "a smiling young woman with blond hair"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pipe() -> DMGIPipeline:
    torch.set_num_threads(1)
    return pipeline()


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    pipe.save_pretrained(folder)
    return folder


def test_one_image(pipe):
    out = pipe(PROMPT, mask=face_mask(), generator=seeded(), return_attention=True)
    assert [image.size for image in out.images] == [(128, 128)]
    assert [image.size for image in out.diffusion_images] == [(128, 128)]
    assert out.latents.shape == (1, 12, 16)
    assert set(out.attention[0]) == set(PROMPT.split())
    assert out.attention[0]["blond"].shape == (16, 16)
    assert not torch.allclose(out.attention[0]["blond"], out.attention[0]["hair"])


def test_latents_are_m_times_gamma_plus_beta_through_g(pipe):
    out = pipe(PROMPT, mask=face_mask(), generator=seeded(), output_type="pt")
    assert torch.equal(out.images, pipe.generator.synthesis(out.latents, noise_mode="const"))
    m_only = pipeline(style_modulation=None)
    other = m_only(PROMPT, mask=face_mask(), generator=seeded(), output_type="pt")
    assert not torch.allclose(out.latents, other.latents)


def test_detail_psi_truncates_the_last_row_and_is_kept_with_the_model(pipe, tmp_path):
    def drawn(model, **options):
        return model(PROMPT, mask=face_mask(), exit_step=0, output_type="pt", **options)

    default, predicted = drawn(pipe), drawn(pipe, detail_psi=1.0)
    assert pipe.config.detail_psi == MINI.detail_psi == 0.5
    w_avg = pipe.generator.mean_latent
    assert torch.equal(default.latents[:, :-1], predicted.latents[:, :-1])
    half_way = (predicted.latents[:, -1] + w_avg) / 2
    torch.testing.assert_close(default.latents[:, -1], half_way)
    assert not torch.allclose(default.images, predicted.images, atol=1e-4)
    own = drawn(pipe, detail_psi=0)
    assert torch.equal(own.latents[:, -1], w_avg.expand_as(half_way))
    pipeline(detail_psi=0.25).save_pretrained(tmp_path)
    index = write_model_index(tmp_path)
    assert index["detail_psi"] == 0.25
    again = drawn(DMGIPipeline.from_pretrained(tmp_path))
    torch.testing.assert_close(again.latents, drawn(pipe, detail_psi=0.25).latents)


def test_same_seed_same_image(pipe):
    options = {"mask": face_mask(), "exit_step": 0, "output_type": "pt"}
    first, again, other = (pipe(PROMPT, generator=seeded(s), **options).images for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(pipe(PROMPT, **options).images, pipe(PROMPT, **options).images)


def test_mask_and_prompt_both_matter_at_the_first_step(pipe):
    mask = face_mask()
    mask[:, :64] = 0
    options = {"exit_step": 0, "output_type": "pt"}
    base = pipe(PROMPT, mask=mask, generator=seeded(), **options).latents
    mirrored = pipe(PROMPT, mask=flip_mask(mask), generator=seeded(), **options).latents
    old_man = pipe("an old man", mask=mask, generator=seeded(), **options).latents
    assert (base - mirrored).abs().max() > 1e-5
    assert (base - old_man).abs().max() > 1e-5


def test_first_step_costs_one_pass_and_reaches_no_diffusion_image(pipe):
    passes = []
    handle = pipe.unet.register_forward_pre_hook(lambda m, args: passes.append(len(args[0])))
    out = pipe(PROMPT, mask=face_mask(), exit_step=0, generator=seeded())
    handle.remove()
    assert passes == [1]
    assert out.diffusion_images is None
    assert out.attention is None


def test_batches_of_prompts_masks_and_copies(pipe):
    options = {"exit_step": 0, "output_type": "pt"}
    masks = [face_mask(), flip_mask(face_mask()), torch.zeros(128, 128, dtype=torch.uint8)]
    generators = [seeded(s) for s in range(6)]
    out = pipe(PROMPT, mask=masks, num_images_per_prompt=2, generator=generators, **options)
    assert out.images.shape == (6, 3, 128, 128)
    alone = pipe(PROMPT, mask=masks[2], generator=seeded(5), **options)
    assert torch.allclose(out.latents[5:], alone.latents, atol=1e-4)
    prompts = ["a man", "a woman", "an old man"]
    pairs = pipe(prompts, mask=masks, generator=[seeded(s) for s in range(3)], **options)
    alone = pipe("an old man", mask=masks[2], generator=seeded(2), **options)
    assert torch.allclose(pairs.latents[2:], alone.latents, atol=1e-4)
    one_mask = pipe(prompts, mask=masks[0], exit_step=0)
    assert len(one_mask.images) == 3


def test_output_types(pipe):
    options = {"mask": face_mask(), "exit_step": 0, "generator": None}
    pixels = np.asarray(pipe(PROMPT, **options).images[0], dtype=np.float32) / 255
    array = pipe(PROMPT, output_type="np", **options).images
    tensor = pipe(PROMPT, output_type="pt", **options).images
    assert array.shape == (1, 128, 128, 3)
    assert np.abs(array[0] - pixels).max() < 1e-6
    clamped = (tensor[0].permute(1, 2, 0).clamp(-1, 1) + 1) / 2
    assert np.abs(clamped.numpy() - pixels).max() < 1 / 255


def test_scribbles_need_networks_of_their_own(pipe):
    strokes = np.zeros((128, 128), bool)
    strokes[40:42, 30:90] = True
    with pytest.raises(ValueError, match="scribble"):
        pipe(PROMPT, scribble=strokes)
    m = mapping_network(seed=8)
    torch.nn.init.normal_(m.fc.weight, std=0.2)
    both = pipeline(controlnet_scribble=controlnet(seed=9), mapping_network_scribble=m)
    drawn = both(PROMPT, scribble=strokes, exit_step=0, output_type="pt")
    blank = both(PROMPT, scribble=np.zeros((128, 128), bool), exit_step=0, output_type="pt")
    assert (drawn.latents - blank.latents).abs().max() > 1e-6


def test_round_trip_through_a_folder(pipe, saved, tmp_path):
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "DMGIPipeline"
    assert index["controlnet_scribble"] == [None, None]
    assert index["mapping_network"] == ["dmgi_lib", "MappingNetwork"]
    assert index["generator"] == ["dmgi_lib", "StyleGAN2Generator"]
    again = DMGIPipeline.from_pretrained(saved)
    assert again.config.num_inference_steps == 4
    options = {"mask": face_mask(), "output_type": "pt"}
    first, second = (p(PROMPT, generator=seeded(), **options) for p in (pipe, again))
    assert torch.allclose(first.images, second.images, atol=1e-5)
    assert torch.allclose(first.diffusion_images, second.diffusion_images, atol=1e-5)
    assert not any(p.requires_grad for p in again.unet.parameters())
    weight = again.unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    again.save_pretrained(tmp_path / "again")  # that layout is no matter of the files
    third = DMGIPipeline.from_pretrained(tmp_path / "again")
    assert torch.equal(third.unet.conv_in.weight, weight)


def test_index_written_from_component_folders_loads(saved, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(saved, folder)
    (folder / "model_index.json").unlink()
    index = write_model_index(folder)
    assert index["mapping_network"] == ["dmgi_lib", "MappingNetwork"]
    assert index["generator"] == ["dmgi_lib", "StyleGAN2Generator"]
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    loaded = DMGIPipeline.from_pretrained(folder)
    assert loaded(PROMPT, mask=face_mask(), exit_step=0).images[0].size == (128, 128)
    shutil.rmtree(folder / "mapping_network")
    write_model_index(folder)
    without_m = DMGIPipeline.from_pretrained(folder)
    with pytest.raises(ValueError, match="no mapping_network"):
        without_m(PROMPT, mask=face_mask())
    shutil.rmtree(folder / "unet")
    with pytest.raises(FileNotFoundError, match="unet"):
        write_model_index(folder)
    assert not list(folder.glob(".model_index*"))


def test_half_precision_files_load_as_float32(saved, tmp_path):
    folder = tmp_path / "tiny"
    half = DMGIPipeline.from_pretrained(saved, dtype=torch.float16)
    half.save_pretrained(folder)
    loaded = DMGIPipeline.from_pretrained(folder)
    for name, part in loaded.components.items():
        if isinstance(part, torch.nn.Module):
            assert part.dtype == torch.float32, name


def test_another_generator_takes_the_place_of_the_stored_one(saved):
    other = generator(seed=99)
    assert DMGIPipeline.from_pretrained(saved, generator=other).generator is other


def test_prompt_warnings_name_the_words(pipe):
    options = {"mask": face_mask(), "exit_step": 0}
    with pytest.warns(UserWarning, match="zorgon, quux"):
        pipe("a zorgon woman with quux hair, zorgon", **options)
    with pytest.warns(UserWarning, match="cut off: 'hair hair"):
        pipe("a young woman with black hair hair hair hair hair hair hair hair", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe("a young woman with black hair.", **options)


@pytest.mark.parametrize("prompt", ["", "   ", ["a woman", ""], "?!", 3, []])
def test_bad_prompts(pipe, prompt):
    with pytest.raises(ValueError, match="prompt"):
        pipe(prompt, mask=face_mask(), exit_step=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither mask nor scribble came; expected exactly one"),
        ({"mask": face_mask(), "scribble": face_mask()}, "both mask and scribble came"),
        ({"mask": face_mask()[:, :64]}, "fit='pad'"),
        ({"mask": face_mask(), "exit_step": 0.5}, "exit_step came as 0.5; expected a whole"),
        ({"mask": face_mask(), "exit_step": 2.5}, "exit_step came as 2.5; expected a whole"),
        ({"mask": face_mask(), "exit_step": True}, "exit_step came as True"),
        ({"mask": face_mask(), "num_inference_steps": "4"}, "num_inference_steps came as '4'"),
        ({"mask": face_mask(), "num_inference_steps": 4.0}, "num_inference_steps came as 4.0"),
        ({"mask": face_mask(), "num_inference_steps": 10**8}, "whole number from 1 to 1000"),
        ({"mask": face_mask(), "num_images_per_prompt": 10**12}, "from 1 to 4096"),
        ({"mask": face_mask(), "num_images_per_prompt": 1.5}, "num_images_per_prompt came as 1.5"),
        ({"mask": [face_mask()] * 2, "num_images_per_prompt": 4000}, "makes 8000 images"),
        ({"mask": face_mask(), "guidance_scale": float("inf")}, "guidance_scale came as inf"),
        ({"mask": face_mask(), "guidance_scale": float("nan")}, "guidance_scale came as nan"),
        ({"mask": face_mask(), "guidance_scale": 1e30}, r"guidance_scale came as 1e\+30"),
        ({"mask": face_mask(), "guidance_scale": "x"}, "guidance_scale came as 'x'"),
        ({"mask": face_mask(), "detail_psi": None, "guidance_scale": [2]}, "guidance_scale"),
        ({"mask": face_mask(), "detail_psi": "1"}, "detail_psi came as '1'"),
        ({"mask": face_mask(), "generator": 3}, "generator came as 3; expected a torch.Generator"),
        ({"mask": face_mask(), "generator": ["x"]}, "generator came as 'x'"),
        ({"mask": face_mask(), "prompt": "a \ud800 man"}, "holds half a character"),
        ({"mask": np.zeros((128, 128))}, "float64"),
        ({"mask": torch.full((128, 128), 40)}, r"\[40\]"),
        ({"mask": Image.new("RGB", (128, 128), (90, 90, 90))}, r"\(90, 90, 90\)"),
        ({"mask": []}, "empty list"),
        ({"mask": [face_mask()] * 2, "prompt": ["a man"] * 3}, "3 prompts and 2"),
        ({"mask": face_mask(), "exit_step": 4}, "exit_step came as 4"),
        ({"mask": face_mask(), "num_inference_steps": 0}, "num_inference_steps"),
        ({"mask": face_mask(), "num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"mask": face_mask(), "output_type": "jpg"}, "'jpg'"),
        ({"mask": face_mask(), "detail_psi": 1.5}, "detail_psi came as 1.5; .* 0 to 1"),
        ({"mask": face_mask(), "detail_psi": float("nan")}, "detail_psi came as nan"),
        ({"mask": face_mask(), "generator": [seeded()] * 2}, "2 generators"),
    ],
)
def test_bad_calls(pipe, options, message):
    started = []
    handle = pipe.text_encoder.register_forward_pre_hook(lambda m, args: started.append(m))
    with pytest.raises(ValueError, match=message):
        pipe(**({"prompt": PROMPT} | options))
    handle.remove()
    assert not started  # before any work


def test_numbers_of_other_kinds_and_other_shapes_are_taken(pipe):
    out = pipe(
        PROMPT,
        mask=face_mask()[:, 16:112],
        fit="pad",
        exit_step=np.int64(0),
        num_inference_steps=np.int32(4),
        num_images_per_prompt=np.uint8(2),
        guidance_scale=np.float32(2.5),
        detail_psi=1,
        generator=(seeded(0), seeded(1)),
    )
    assert len(out.images) == 2


@pytest.mark.parametrize("words", ["a marble statue of a woman", "an elf", "a pencil sketch"])
def test_styles_that_the_model_lacks_are_warned_of(pipe, words):
    with pytest.warns(UserWarning, match="asks for a style .* this model has none such"):
        pipe(words, mask=face_mask(), exit_step=0)


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"'medium'.*mini.*paper"):
        DMGIPipeline.from_pretrained("medium")


def test_missing_and_truncated_weights(saved, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(saved, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"unet.*truncated"):
            DMGIPipeline.from_pretrained(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="unet"):
        DMGIPipeline.from_pretrained(folder)
    shutil.rmtree(folder / "unet")
    with pytest.raises(FileNotFoundError, match="unet"):
        DMGIPipeline.from_pretrained(folder)
    (folder / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match=r"model_index.json"):
        DMGIPipeline.from_pretrained(folder)
    (folder / "model_index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"model_index.json"):
        DMGIPipeline.from_pretrained(folder)


def test_whole_files_pass_the_check(saved):
    check_weights(saved)
    check_safetensors(saved / "vae" / "diffusion_pytorch_model.safetensors")


def test_paper_preset_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*not on this machine"):
        DMGIPipeline.from_pretrained("paper", base_model=tmp_path / "nowhere")


def test_paper_preset_loads_from_local_folders(pipe, saved, tmp_path, monkeypatch):
    """The real loading path, on tiny parts in the folder layout of Stable Diffusion."""
    monkeypatch.setattr(paper_components, "CLIPTokenizer", type(pipe.tokenizer))
    loaded = paper_components.load_paper_components(saved, saved / "controlnet")
    assert loaded["mapping_network"] is None
    paper = DMGIPipeline.from_pretrained(
        "paper",
        base_model=saved,
        controlnet=saved / "controlnet",
        generator=generator(),
        mapping_network=pipe.mapping_network,
    )
    assert paper.config.num_inference_steps == 50
    out = paper(PROMPT, mask=face_mask(), num_inference_steps=2)
    assert out.images[0].size == (128, 128)
