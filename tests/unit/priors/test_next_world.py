"""The networks of the next world are what their cards say."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, PreTrainedTokenizerFast

from data_prep.priors.autoencoder import measure
from data_prep.priors.caption_tokens import token_ids
from data_prep.priors.latent_prior import ImageEncoder
from data_prep.priors.world_parts import PARTS
from dmgi_lib import DMGIPipeline
from dmgi_lib.dataset import ATTRIBUTES, FaceDataset, shipped_root, to_float
from dmgi_lib.evaluation.metrics import attribute_accuracy, confusion, edge_energy, mean_iou
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator
from dmgi_lib.masks import mask_to_rgb, scribble_to_rgb
from dmgi_lib.patch_autoencoder import PatchAutoencoderKL
from dmgi_lib.presets import MINI
from dmgi_lib.recognizers import HAIR_COLORS, AttributeJudge, ParserJudge, Recognizer

WORLD = Path(__file__).parents[3] / "data_prep" / "next_world"


class FirstPeople:
    """The first 40 of the test people."""

    def __init__(self) -> None:
        people = FaceDataset(shipped_root(), "test")
        self.split, self.attributes = "test", people.attributes[:40]
        self.images, self.masks = people.images[:40], people.masks[:40]
        self.scribbles = people.scribbles[:40]
        self.captions = [captions[0] for captions in people.captions[:40]]


@torch.no_grad()
def test_its_autoencoder_keeps_eyes():
    vae = PatchAutoencoderKL.from_pretrained(WORLD / "vae").eval()
    people = FirstPeople()
    found = measure(vae, people)
    assert found["PSNR, test (dB)"] > 32.5 and found["PSNR at the eyes, test (dB)"] > 24.5
    latents = vae.encode(to_float(people.images)).latent_dist.mean
    assert latents.shape == (40, 16, 16, 16)
    assert 0.9 < latents.std() < 1.1 and latents.mean().abs() < 0.1


def test_its_words_name_clothes_colours_and_places():
    tokenizer = PreTrainedTokenizerFast.from_pretrained(WORLD / "tokenizer")
    known = tokenizer.get_vocab()
    for word in ("hoodie", "turtleneck", "purple", "bookshelves", "night", "watercolor", "white"):
        assert word in known
    assert "girl" not in known and "boy" not in known
    encoder = CLIPTextModel.from_pretrained(WORLD / "text_encoder").eval()
    assert encoder.config.vocab_size == len(known)
    ids = token_ids(tokenizer, ["a man in a red shirt", "a man in a blue shirt"])
    with torch.no_grad():
        red, blue = encoder(ids).last_hidden_state
    assert not torch.allclose(red, blue, atol=0.1)


@torch.no_grad()
def test_its_text_image_encoder_finds_a_face_by_its_caption():
    clip = CLIPModel.from_pretrained(WORLD / "image_encoder").eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(WORLD / "tokenizer")
    people = FirstPeople()
    captions = ["a man", "a woman"]
    text = clip.text_projection(clip.text_model(token_ids(tokenizer, captions)).pooler_output)
    image = clip.visual_projection(clip.vision_model(to_float(people.images)).pooler_output)
    likes = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
    male = people.attributes[:, ATTRIBUTES.index("Male")] == 1
    assert ((likes[:, 0] > likes[:, 1]) == male).float().mean() > 0.85


@torch.no_grad()
def test_its_loss_net_reads_faces_still_and_the_new_words_too():
    loss_net = Recognizer.from_pretrained(WORLD / "loss_net").eval()
    people = FirstPeople()
    read = loss_net.attributes(to_float(people.images)) > 0
    assert loss_net.reads.all() and attribute_accuracy(read, people.attributes) > 0.9


@torch.no_grad()
def test_its_generator_draws_what_its_encoder_reads_and_is_sharp():
    G = StyleGAN2Generator.from_pretrained(WORLD / "generator").eval()
    encoder = ImageEncoder.from_pretrained(WORLD / "encoder").eval()
    images = to_float(FirstPeople().images)
    ws, offsets = encoder(images)
    drawn = G.synthesis(ws + offsets)
    error = (drawn - images).abs().mean()
    assert error < 0.13 and error < 0.35 * (drawn - images.roll(1, 0)).abs().mean()
    faces = G(torch.randn(40, G.z_dim, generator=torch.Generator().manual_seed(0)))
    assert 0.85 < edge_energy(faces.clamp(-1, 1)).mean() / edge_energy(images).mean() < 1.15


@torch.no_grad()
def test_its_denoiser_reads_the_sentence_and_its_controlnets_the_condition():
    vae = PatchAutoencoderKL.from_pretrained(WORLD / "vae").eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(WORLD / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(WORLD / "text_encoder", dtype=torch.float32).eval()
    unet = UNet2DConditionModel.from_pretrained(WORLD / "unet").eval()
    controlnets = {
        name: ControlNetModel.from_pretrained(WORLD / name).eval()
        for name in ("controlnet", "controlnet_scribble")
    }
    scheduler = DDIMScheduler.from_pretrained(WORLD / "scheduler")
    people = FirstPeople()
    latents = vae.encode(to_float(people.images)).latent_dist.mean
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor(600)
    velocity = scheduler.get_velocity(latents, noise, t)
    noisy = scheduler.add_noise(latents, noise, t)
    text = encoder(token_ids(tokenizer, people.captions)).last_hidden_state

    def error(states, name="", x=None):
        more = {}
        if name:
            down, mid = controlnets[name](noisy, t, states, x, return_dict=False)
            more["down_block_additional_residuals"] = down
            more["mid_block_additional_residual"] = mid
        return F.mse_loss(unet(noisy, t, states, **more).sample, velocity)

    blind = error(text)
    assert blind < 0.96 * error(text.roll(1, 0)) and blind < 0.2 * velocity.square().mean()
    strokes = scribble_to_rgb(people.scribbles)
    for name, x in zip(controlnets, (mask_to_rgb(people.masks), strokes), strict=True):
        assert error(text, name, x) < 0.9 * blind < error(text, name, x.roll(1, 0)), name


@pytest.mark.parametrize("condition", ["mask", "scribble"])
def test_its_heads_follow_x(condition):
    heads, people = DMGIPipeline.from_pretrained(WORLD / "3d"), FirstPeople()
    masks, x = people.masks[:20], [*getattr(people, f"{condition}s")[:20]]
    captions = people.captions[:20]
    drawn = heads(captions, **{condition: x}, exit_step=0, output_type="pt").images
    judge = ParserJudge.from_pretrained(MINI.folder / "judge_parser").eval()
    parsed = judge.parse(drawn)
    own, other = (mean_iou(confusion(parsed, x)) for x in (masks, masks.roll(1, 0)))
    assert own > {"mask": 0.4, "scribble": 0.28}[condition]  # scribbles tell no camera
    assert own > 1.3 * other


@pytest.mark.parametrize("condition", ["mask", "scribble"])
def test_it_draws_what_x_and_words_say(condition):
    pipe = DMGIPipeline.from_pretrained(WORLD)
    people = FirstPeople()
    masks, captions = people.masks[:20], people.captions[:20]
    x = [*getattr(people, f"{condition}s")[:20]]
    drawn = pipe(captions, **{condition: x}, exit_step=0, output_type="pt").images
    judge = ParserJudge.from_pretrained(MINI.folder / "judge_parser").eval()
    parsed = judge.parse(drawn)
    own, other = (mean_iou(confusion(parsed, x)) for x in (masks, masks.roll(1, 0)))
    assert own > 0.4 and own > 1.5 * other
    sharp = {"mask": 0.7, "scribble": 0.6}[condition]  # M and T of scribbles saw less
    assert edge_energy(drawn).mean() > sharp * edge_energy(to_float(people.images[:20])).mean()
    reader = AttributeJudge.from_pretrained(WORLD / "judge_attributes").eval()
    for word in ("black", "gray"):
        words = [f"a man with {word} hair"] * 8
        faces = pipe(words, **{condition: x[:8]}, exit_step=0, output_type="pt").images
        with torch.no_grad():
            read = reader(faces)[1].argmax(1)
        assert (read == HAIR_COLORS.index(word)).float().mean() > 0.7, word


def test_styles_and_edits_are_of_its_generator():
    pipe = DMGIPipeline.from_pretrained(WORLD)
    code = pipe.generator.mean_latent.expand(1, pipe.generator.num_ws, -1)
    plain = pipe.edit(code, output_type="pt").images
    bearded = pipe.edit(code, beard=1, output_type="pt").images
    bronze = pipe.edit(code, style="bronze", output_type="pt").images
    reader = AttributeJudge.from_pretrained(WORLD / "judge_attributes").eval()
    with torch.no_grad():
        seen = reader(torch.cat([plain, bearded]))[0][:, ATTRIBUTES.index("Full_Beard")]
    assert seen[0] < 0 < seen[1]
    assert (bronze - plain).abs().mean() > 0.1


@pytest.mark.parametrize(
    "name",
    [
        "loss_net",
        "autoencoder",
        "text_image",
        "unet",
        "controlnet",
        "controlnet_scribble",
        "stylegan2",
        "stage3",
        "stage3_scribble",
        "mask_encoder",
        "style_offsets",
        "edit_directions",
        "judge_attributes",
    ],
)
def test_the_trainer_of_worlds_counts_it_as_finished(name):
    (part,) = (part for part in PARTS if part.name == name)
    for folder in part.makes:
        assert any((WORLD / folder).glob("*config.json")), folder
