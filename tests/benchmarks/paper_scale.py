"""The "paper" preset at true size on random weights: operations, bytes, and one early exit.

    python tests/benchmarks/paper_scale.py --count            # operations and bytes, seconds
    python tests/benchmarks/paper_scale.py --estimate --rate 100    # hours of docs/paper_scale.md
    python tests/benchmarks/paper_scale.py --draw float32     # the whole call at exit step 0
    python tests/benchmarks/paper_scale.py --draw bfloat16 --device cuda

Stable Diffusion 1.5 with a ControlNet at 512 px, M and T, StyleGAN2 at 1024 px (18 x 512 codes).
Weights are random, since operations, bytes and seconds do not depend on them; operations are
counted on fake tensors, so that `--count` needs neither the memory nor the time of a forward pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import tyro
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from dmgi_lib.devices import machine, peak_gb, pick_device, synchronize
from dmgi_lib.evaluation.speed import peak_memory_gb
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator
from dmgi_lib.mapping_network import MappingNetwork
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import PAPER
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.style_modulation import StyleModulationNetwork

BLOCKS: dict[str, Any] = dict(
    down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    block_out_channels=(320, 640, 1280, 1280),
    layers_per_block=2,
    cross_attention_dim=768,
    attention_head_dim=8,
)
TEXT_LENGTH = 77
TRAINING, TEST = 24_183 + 2_993, 2_824  # CelebA-HQ by CelebA's partition; validation trains
CACHED = 4_000  # --limit of the recipe


def networks() -> dict[str, nn.Module]:
    """Every network of the method at the sizes of the released ones, drawn at random."""
    unet = UNet2DConditionModel(
        sample_size=64, up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3), **BLOCKS
    )
    text = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=TEXT_LENGTH,
        vocab_size=49408,
    )
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=512,
    )
    return {
        "text_encoder": CLIPTextModel(text),
        "unet": unet,
        "controlnet": ControlNetModel(**BLOCKS),
        "vae": vae,
        "mapping_network": MappingNetwork(**vars(PAPER.mapping)),
        "style_modulation": StyleModulationNetwork(**vars(PAPER.modulation)),
        "generator": StyleGAN2Generator(),
    }


def tokenizer() -> PreTrainedTokenizerFast:
    """Words instead of CLIP's word pieces: the length is what counts."""
    words = ["<pad>", "<bos>", "<eos>", "<unk>", "a", "smiling", "young", "woman"]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=TEXT_LENGTH,
    )


def operations() -> dict[str, float]:
    """Network → 10^12 operations (2 per multiply-add) of one forward pass at batch 1."""
    with FakeTensorMode(), torch.no_grad():
        latents, text = torch.empty(1, 4, 64, 64), torch.empty(1, TEXT_LENGTH, 768)
        sizes = zip((1280, 640, 320), (32, 64, 64), strict=True)
        f = [torch.empty(1, channels, size, size) for channels, size in sizes]
        a = [torch.empty(1, 1, size, size) for size in (16, 32, 64)]
        x, h = torch.empty(1, 3, 512, 512), torch.empty(1, 1280, 8, 8)
        calls: dict[str, Callable[[Any], object]] = {
            "text_encoder": lambda net: net(torch.empty(1, TEXT_LENGTH, dtype=torch.long)),
            "unet": lambda net: net(latents, torch.empty(1), text),
            "controlnet": lambda net: net(latents, torch.empty(1), text, x),
            "vae": lambda net: net.decode(latents),
            "mapping_network": lambda net: net(h),
            "style_modulation": lambda net: net(f, a),
            "generator": lambda net: net.synthesis(torch.empty(1, 18, 512), noise_mode="const"),
        }
        found = {}
        for name, net in networks().items():
            with FlopCounterMode(display=False) as counter:
                calls[name](net.eval())
            found[name] = counter.get_total_flops() / 1e12
    return found


def feature_bytes() -> int:
    """What a feature cache keeps of one sample at one step, in fp16: h, f, pooled maps."""
    h, f = 1280 * 8 * 8, 1280 * 32**2 + 640 * 64**2 + 320 * 64**2
    return 2 * (h + f + 2 * (16**2 + 32**2 + 64**2))


def training_operations() -> float:
    """10^12 operations of the loss net for one training sample: I forwards, I' there and back."""
    with FakeTensorMode(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        Recognizer().eval()(torch.empty(1, 3, 512, 512))
    return 3 * counter.get_total_flops() / 1e12


def kept_for_the_gradient() -> float:
    """GB that autograd keeps of one sample's way through G, in float32."""
    kept: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        alive.append(storage)  # else the next one may get its address
        return x

    alive: list[torch.UntypedStorage] = []
    with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        G = StyleGAN2Generator().requires_grad_(False)
        own = {p.untyped_storage()._cdata for p in (*G.parameters(), *G.buffers())}
        G.synthesis(torch.empty(1, 18, 512, requires_grad=True), noise_mode="const")
    return sum(size for home, size in kept.items() if home not in own) / 1e9


def estimate(rate: float) -> None:
    """Prints hours, disk and memory of docs/paper_scale.md's steps, from what `count` counts.

    hours = samples x 10^12 operations a sample / rate / 3600.

    Args:
        rate: 10^12 operations a second that the GPU sustains, not what its maker states.
    """
    flops, S = operations(), PAPER.num_inference_steps
    guided = 2 * (flops["unet"] + flops["controlnet"])
    process = S * guided + flops["vae"] + 2 * flops["text_encoder"]
    # G's weights are frozen, but styles scale them, so that both of its gradients are computed.
    learn = 3 * (flops["mapping_network"] + flops["generator"]) + training_operations()
    learn_t = learn + 3 * flops["style_modulation"]
    stored = (5 * feature_bytes() + 3 * 512**2) / 1e9
    with FakeTensorMode():
        weights = {k: sum(p.numel() for p in n.parameters()) for k, n in networks().items()}
    encoder = sum(weights[k] for k in ("text_encoder", "unet", "controlnet", "vae"))
    rows = [
        ("a call, one picture, S = 50", 1, process + flops["generator"], 0.0),
        ("a call, one picture, exit step 0", 1, guided + flops["generator"], 0.0),
        (f"features of {CACHED:,} pictures", CACHED, process, CACHED * stored),
        (f"features of all {TRAINING:,}", TRAINING, process, TRAINING * stored),
        ("stage 1, 1,000 steps of 16", 16_000, learn, 0.0),
        ("stage 2 or 3, 1,000 steps of 16", 16_000, learn_t, 0.0),
        ("the same with --online", 16_000, learn_t + process, 0.0),
        (f"the {TEST:,} test pictures", TEST, process + flops["generator"], 0.0),
    ]
    print(f"Estimates, not measured, at {rate:g} x 10^12 operations a second:")
    print(f"{'what':36s}{'10^12 each':>12s}{'hours':>10s}{'GB of disk':>12s}")
    for what, samples, tera, disk in rows:
        hours = samples * tera / rate / 3600
        print(f"{what:36s}{tera:12.2f}{hours:10.4f}{disk:12.0f}")
    print(f"weights of E: {encoder * 2 / 1e9:.1f} GB in bf16, {encoder * 4 / 1e9:.1f} in fp32")
    print(f"kept for G's gradient: {kept_for_the_gradient():.2f} GB a sample in fp32")


def count() -> None:
    """Prints operations, parameters and bytes."""
    flops = operations()
    with FakeTensorMode():
        sizes = {k: sum(p.numel() for p in n.parameters()) for k, n in networks().items()}
    print(f"{'network':20s}{'10^12 operations':>18s}{'10^6 parameters':>18s}{'GB in bf16':>12s}")
    for name, tera in flops.items():
        row = f"{tera:18.3f}{sizes[name] / 1e6:18.1f}{sizes[name] * 2 / 1e9:12.2f}"
        print(f"{name:20s}{row}")
    step = 2 * (flops["unet"] + flops["controlnet"])  # guidance doubles the batch
    print(f"a step of the guided process: {step:.2f} x 10^12 operations")
    print(f"features of a sample at a step: {feature_bytes() / 1e6:.1f} MB in fp16")


@torch.no_grad()
def draw(dtype: torch.dtype, device: torch.device) -> None:
    """One call at exit step 0, from text and mask to 1024 px; prints seconds and peak memory."""
    torch.manual_seed(0)
    begin = time.perf_counter()
    torch.set_default_dtype(dtype)  # built in the wanted precision, not converted to it
    nets = networks()
    torch.set_default_dtype(torch.float32)
    pipe = DMGIPipeline(
        tokenizer=tokenizer(),
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        num_inference_steps=PAPER.num_inference_steps,
        guidance_scale=PAPER.guidance_scale,
        detail_psi=PAPER.detail_psi,
        **nets,
    ).to(device, dtype)
    built = time.perf_counter() - begin
    mask = torch.zeros(512, 512, dtype=torch.uint8)
    mask[60:460, 100:412], mask[120:440, 150:362] = 13, 1
    begin = time.perf_counter()
    out = pipe("a smiling young woman", mask=mask, exit_step=0, output_type="pt")
    synchronize(device)
    seconds = time.perf_counter() - begin
    if out.images.shape != (1, 3, 1024, 1024) or not out.images.isfinite().all():
        raise AssertionError(f"drew {tuple(out.images.shape)}, or numbers that are not finite")
    if out.latents.shape != (1, 18, 512):
        raise AssertionError(f"codes are {tuple(out.latents.shape)}; expected (1, 18, 512)")
    memory = peak_gb(device) or peak_memory_gb()
    print(
        f"{str(dtype).removeprefix('torch.')} on {machine(device)}: built in {built:.0f} s,"
        f" exit step 0 in {seconds:.1f} s, peak {memory:.2f} GB"
    )


@dataclass(frozen=True)
class Arguments:
    """What to measure.

    Args:
        count: operations and bytes of every network
        draw: a call in this precision: float32, bfloat16 or float16
        estimate: hours, disk and memory of the recipe's steps
        rate: 10^12 operations a second that the GPU sustains
        device: auto, cpu, cuda or mps
    """

    count: bool = False
    draw: Annotated[str | None, tyro.conf.arg(metavar="DTYPE")] = None
    estimate: bool = False
    rate: float = 100.0
    device: str = "cpu"


def main() -> None:
    given = tyro.cli(Arguments, description=__doc__)
    if given.count or (given.draw is None and not given.estimate):
        count()
    if given.estimate:
        estimate(given.rate)
    if given.draw is not None:
        draw(getattr(torch, given.draw), pick_device(given.device))


if __name__ == "__main__":
    main()
