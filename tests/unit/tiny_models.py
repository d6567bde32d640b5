"""Tiny models with random weights, for tests of shapes and wiring only."""

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.generators.eg3d.volume_rendering import RenderingConfig
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator
from dmgi_lib.mapping_network import MappingNetwork
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.style_modulation import StyleModulationNetwork

TOKENS = 12
WORDS = [
    "a",
    "an",
    "young",
    "old",
    "woman",
    "man",
    "with",
    "black",
    "brown",
    "blond",
    "red",
    "gray",
    "hair",
    "smiling",
    ".",
]
MINI_BLOCKS = dict(
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    block_out_channels=(16, 24, 32),
    layers_per_block=1,
)
SD_BLOCKS = dict(
    down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    block_out_channels=(8, 16, 24, 32),
    layers_per_block=2,
)
FEW = RenderingConfig(8, 8)  # coarse and fine samples of a ray


def unet(seed: int = 0, blocks: dict = MINI_BLOCKS) -> UNet2DConditionModel:
    """A small U-Net; blocks=SD_BLOCKS has the four-block layout of Stable Diffusion 1.x."""
    torch.manual_seed(seed)
    cross = len(blocks["down_block_types"]) - 1
    return UNet2DConditionModel(
        sample_size=16,
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * cross),
        cross_attention_dim=24,
        attention_head_dim=4,
        norm_num_groups=8,
        **blocks,
    ).eval()


def controlnet(seed: int = 1, blocks: dict = MINI_BLOCKS) -> ControlNetModel:
    """A ControlNet whose zero convolutions are random, so that its condition has an effect."""
    torch.manual_seed(seed)
    net = ControlNetModel(
        cross_attention_dim=24,
        attention_head_dim=4,
        norm_num_groups=8,
        conditioning_embedding_out_channels=(8, 8, 8, 8),
        **blocks,
    ).eval()
    for module in (
        *net.controlnet_down_blocks,
        net.controlnet_mid_block,
        net.controlnet_cond_embedding.conv_out,
    ):
        torch.nn.init.normal_(module.weight, std=0.3)
    return net


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def tokenizer() -> PreTrainedTokenizerFast:
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    vocabulary = {token: i for i, token in enumerate([*special, *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=TOKENS,
    )


def text_encoder(seed: int = 2) -> CLIPTextModel:
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=len(WORDS) + 4,
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return CLIPTextModel(config).eval()


def vae(seed: int = 3) -> AutoencoderKL:
    torch.manual_seed(seed)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        sample_size=128,
    ).eval()


def generator(seed: int = 4) -> StyleGAN2Generator:
    torch.manual_seed(seed)
    net = StyleGAN2Generator(
        z_dim=16,
        w_dim=16,
        img_resolution=128,
        mapping_layers=2,
        channel_base=512,
        channel_max=16,
    )
    net.mapping.w_avg.normal_()
    return net.eval()


def mapping_network(seed: int = 5, **options) -> MappingNetwork:
    torch.manual_seed(seed)
    options = dict(in_channels=32, num_ws=12, w_dim=16, width=16) | options
    return MappingNetwork(**options).eval()


def style_modulation(seed: int = 6, **options) -> StyleModulationNetwork:
    torch.manual_seed(seed)
    sizes = dict(in_channels=(24, 16), num_ws=12, w_dim=16, reduced_channels=8, width=8)
    return StyleModulationNetwork(**(sizes | options)).eval()


def pipeline(**components) -> DMGIPipeline:
    """All parts together; M and T get random last layers so that every input has an effect."""
    m, t = mapping_network(), style_modulation()
    torch.manual_seed(7)
    for fc in (m.fc, t.stacks["local"][-1], t.stacks["averaged"][-1]):
        torch.nn.init.normal_(fc.weight, std=0.2)
    parts = dict(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        vae=vae(),
        unet=unet(),
        controlnet=controlnet(),
        scheduler=scheduler(),
        mapping_network=m,
        style_modulation=t,
        generator=generator(),
        num_inference_steps=4,
    )
    return DMGIPipeline(**(parts | components))


def face_mask(size: int = 128) -> torch.Tensor:
    """(size, size) uint8: hair above, skin with eyes, nose and lips, neck, cloth."""
    mask = torch.zeros(128, 128, dtype=torch.uint8)
    mask[10:60, 30:98] = 13
    mask[100:120, 52:76] = 17
    mask[112:128, 20:108] = 18
    mask[35:105, 38:90] = 1
    mask[48:51, 46:58], mask[48:51, 70:82] = 7, 6
    mask[54:58, 48:56], mask[54:58, 72:80] = 5, 4
    mask[58:76, 60:68] = 2
    mask[82:85, 54:74], mask[85:88, 56:72], mask[88:92, 54:74] = 11, 10, 12
    step = 128 // size
    return mask[::step, ::step].contiguous()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny_stylegan2(**changes) -> StyleGAN2Generator:
    torch.manual_seed(0)
    sizes = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "mapping_layers": 2}
    G = StyleGAN2Generator(**(sizes | {"channel_base": 64, "channel_max": 8} | changes))
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.3)
    G.mapping.w_avg.normal_(generator=rng(1))
    return G.eval()


def tiny_eg3d(**changes) -> TriPlaneGenerator:
    torch.manual_seed(0)
    sizes = {"z_dim": 8, "w_dim": 8, "img_resolution": 16, "channel_base": 64, "channel_max": 8}
    planes = {"plane_resolution": 16, "plane_channels": 4, "decoder_hidden": 8}
    rest = {"feature_channels": 5, "neural_rendering_resolution": 8, "sr_channels": (6, 4)}
    G = TriPlaneGenerator(**(sizes | planes | rest | {"rendering": FEW} | changes))
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.3)
    G.mean_latent.normal_(generator=rng(1))
    return G.eval()
