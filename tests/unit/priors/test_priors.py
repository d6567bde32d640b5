"""data_prep.priors: a short training of each script, what it ships and how it resumes."""

import json
import math
import shutil

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, PreTrainedTokenizerFast

from data_prep.priors import (
    train_autoencoder,
    train_controlnet,
    train_text_image,
    train_unet,
)
from data_prep.priors.card import command_line, save_whole
from data_prep.priors.latents import FrozenPriors
from data_prep.priors.text_image_measurements import embed_text
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.prompts import encode_text, tokenize

CLIP = train_text_image.TextImageRecipe(
    text={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    vision={
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 128,
        "patch_size": 32,
    },
    projection_dim=16,
)
VAE = train_autoencoder.AutoencoderRecipe(
    architecture={
        "block_out_channels": (8, 8, 8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "mid_block_add_attention": False,
        "latent_channels": 4,
        "sample_size": 128,
    }
)
UNET = train_unet.UNetRecipe(
    architecture={
        "sample_size": 16,
        "block_out_channels": (16, 16, 16),
        "attention_head_dim": (2, 2, 2),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
)
CONTROLNET = train_controlnet.ControlNetRecipe(embedding_channels=(4, 4, 4, 8))


@pytest.fixture(scope="module")
def trained(tiny_faces, tmp_path_factory):
    """A weight folder made by three steps of every script, in the order of their dependence."""
    folder = tmp_path_factory.mktemp("weights")

    def arguments(name, *more):
        shared = ["--data", tiny_faces, "--weights", folder, "--run-dir", folder / "runs" / name]
        numbers = ["--max-steps", 3, "--minutes", 5, "--batch-size", 4, "--threads", 1]
        return [str(a) for a in (*shared, *numbers, *more)]

    train_text_image.main(arguments("text_image"), CLIP)
    train_autoencoder.main(arguments("autoencoder"), VAE)
    train_unet.main(arguments("unet"), UNET)
    train_controlnet.main(arguments("mask"), CONTROLNET)
    train_controlnet.main(arguments("scribble", "--condition", "scribble"), CONTROLNET)
    return folder, arguments


def test_every_script_ships_half_precision_weights_and_a_card(trained):
    folder, _ = trained
    loaders = {
        "text_encoder": CLIPTextModel,
        "image_encoder": CLIPModel,
        "vae": AutoencoderKL,
        "unet": UNet2DConditionModel,
        "controlnet": ControlNetModel,
        "controlnet_scribble": ControlNetModel,
    }
    for name, cls in loaders.items():
        model = cls.from_pretrained(folder / name)
        assert all(torch.isfinite(p).all() for p in model.parameters()), name
        card = (folder / name / "card.md").read_text()
        for word in (
            "python -m data_prep.priors.train_",
            "| seed | 0 |",
            "| steps | 3 of 4 images",
        ):
            assert word in card, (name, word)
        assert "test" in card.split("| measurement")[1], name
        weights = next((folder / name).glob("*.safetensors"))
        elements = sum(p.numel() for p in model.parameters())
        assert weights.stat().st_size < 2.5 * elements + 50_000, name
    assert DDIMScheduler.from_pretrained(folder / "scheduler").config.prediction_type == (
        "v_prediction"
    )
    assert not list(folder.glob(".saving*"))


def test_runs_leave_log_and_samples_and_resume(trained):
    folder, arguments = trained
    assert (folder / "runs" / "unet" / "samples" / "0000003.png").is_file()
    more = arguments("unet")
    more[more.index("--max-steps") + 1] = "5"
    more += ["--out", str(folder / "again" / "unet")]
    assert train_unet.main(more, UNET).step == 5
    (folder / "again" / "unet" / "config.json").unlink()
    assert train_unet.main([*more, "--export-only"], UNET).step == 5
    assert (folder / "again" / "unet" / "config.json").is_file()


def test_the_shipped_text_encoder_is_the_text_tower(trained):
    folder, _ = trained
    priors = FrozenPriors.load(folder)
    clip = CLIPModel.from_pretrained(folder / "image_encoder", dtype=torch.float32).eval()
    ids = tokenize(priors.tokenizer, ["a smiling woman with red hair"]).ids
    states = encode_text(priors.text_encoder, ids)
    assert states.shape == (1, 40, 32)
    torch.testing.assert_close(states, clip.text_model(ids).last_hidden_state)
    # pooled at <eos>: what follows it does not count, and the last word does
    eos = int((ids[0] == priors.tokenizer.eos_token_id).nonzero()[0, 0])
    changed = ids.clone()
    changed[0, eos + 1 :] = 5
    pooled = clip.text_model(ids).pooler_output
    torch.testing.assert_close(clip.text_model(changed).pooler_output, pooled)
    red, gray = embed_text(clip, priors.tokenizer, ["a man with red hair", "a man with gray hair"])
    assert not torch.allclose(red, gray)


def test_the_tokenizer_knows_the_words_of_its_captions_only(trained):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained[0] / "tokenizer")
    assert tokenizer.model_max_length == 40
    ids = tokenizer("A MAN, with green hair.")["input_ids"]
    words = ["<bos>", "a", "man", ",", "with", "<unk>", "hair", ".", "<eos>"]
    assert tokenizer.convert_ids_to_tokens(ids) == words
    assert tokenizer.eos_token_id != 2
    long = tokenizer("man " * 60, truncation=True, max_length=40)["input_ids"]
    assert len(long) == 40 and long[-1] == tokenizer.eos_token_id


def test_missing_priors_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="train_text_image"):
        FrozenPriors.load(tmp_path)


def test_standardised_latents_leave_reconstructions_unchanged():
    torch.manual_seed(0)
    vae = train_autoencoder.build_autoencoder(VAE).eval()
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    before = train_autoencoder.reconstruct(vae, images).float()
    spread = vae.encode(images / 127.5 - 1).latent_dist.std.mean((0, 2, 3))
    deviation = vae.encode(images / 127.5 - 1).latent_dist.mean.transpose(0, 1).flatten(1).std(1)
    train_autoencoder.standardise_latents(vae, images)
    after = train_autoencoder.reconstruct(vae, images).float()
    assert (after - before).abs().max() <= 1
    posterior = vae.encode(images / 127.5 - 1).latent_dist
    latents = posterior.mean.transpose(0, 1).flatten(1)
    torch.testing.assert_close(latents.mean(1), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std(1), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(posterior.std.mean((0, 2, 3)), spread / deviation)
    assert vae.config.scaling_factor == pytest.approx(1.0, abs=1e-2)


def test_an_untrained_controlnet_changes_nothing_and_a_trained_one_does(trained):
    folder, _ = trained
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    fresh = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 4, 8))
    learnt = ControlNetModel.from_pretrained(folder / "controlnet", torch_dtype=torch.float32)
    rng = torch.Generator().manual_seed(0)
    noisy, text = torch.randn(1, 4, 16, 16, generator=rng), torch.randn(1, 40, 32, generator=rng)
    t, condition = torch.tensor([999]), torch.rand(1, 3, 128, 128, generator=rng)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        alone = unet(noisy, t, text).sample.float()
    with torch.no_grad():
        controlled = train_controlnet.predict(unet, fresh, noisy, t, text, condition)
        moved = train_controlnet.predict(unet, learnt, noisy, t, text, condition)
    torch.testing.assert_close(controlled, alone, atol=2e-2, rtol=2e-2)
    assert not torch.equal(moved, controlled)
    config = json.loads((folder / "controlnet" / "config.json").read_text())
    assert config["cross_attention_dim"] == 32


def test_autoencoder_measurements_by_hand(tiny_faces, monkeypatch):
    dataset = FaceDataset(tiny_faces, "test")
    darker = (dataset.images.int() - 51).clamp(min=0).to(torch.uint8)
    monkeypatch.setattr(train_autoencoder, "reconstruct", lambda model, images: darker)
    dataset.__dict__["images"] = dataset.images.clamp(min=51)
    found = train_autoencoder.measure(None, dataset)
    error = (darker.float() - dataset.images.float()).abs() / 255
    assert found["L1, test"] == pytest.approx(error.mean().item(), rel=1e-4)
    assert found["PSNR at the eyes, test (dB)"] == pytest.approx(-20 * math.log10(0.2), abs=1.0)


def test_card_commands_and_folders(tmp_path):
    def fail(folder):
        raise KeyboardInterrupt

    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        save_whole(tmp_path / "vae", fail)
    assert [p.name for p in tmp_path.rglob("*")] == ["vae", "config.json"]
    assert command_line("a.b", ["--x", "two words"]) == "python -m a.b --x 'two words'"


def test_stylised_renders_teach_words_only(tiny_faces, tmp_path):
    shutil.copytree(tiny_faces, tmp_path / "faces")
    alone = train_text_image.training_pictures(tmp_path / "faces")
    shutil.copytree(tmp_path / "faces" / "train", tmp_path / "faces" / "styles")
    both = train_text_image.training_pictures(tmp_path / "faces")
    n = len(alone)
    assert len(both) == 2 * n == len(both.captions)
    assert torch.equal(both.attributes[:n], alone.attributes)
    assert (both.attributes[n:] == -1).all() and (alone.attributes >= 0).any()
