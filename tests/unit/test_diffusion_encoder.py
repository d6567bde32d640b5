import pytest
import torch
from tiny_models import MINI_BLOCKS, SD_BLOCKS, TOKENS, controlnet, scheduler, unet

from dmgi_lib.diffusion_encoder import DiffusionEncoder
from dmgi_lib.feature_capture import capture_features, decoder_blocks_with_attention

LAYOUTS = pytest.mark.parametrize("blocks", [MINI_BLOCKS, SD_BLOCKS], ids=["mini", "sd"])


def inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {
        "latents": torch.randn(batch, 4, 16, 16, generator=rng),
        "text": torch.randn(batch, TOKENS, 24, generator=rng),
        "image": torch.rand(batch, 3, 128, 128, generator=rng),
    }


def encoder(blocks: dict = MINI_BLOCKS) -> DiffusionEncoder:
    return DiffusionEncoder(unet(blocks=blocks), controlnet(blocks=blocks), scheduler())


def run(e: DiffusionEncoder, x: dict[str, torch.Tensor], seed: int = 3, **options) -> list:
    options = {"num_inference_steps": 4} | options
    generator = torch.Generator().manual_seed(seed)
    empty = torch.zeros(1, TOKENS, 24)
    return list(e.reverse_process(x["text"], empty, x["image"], generator=generator, **options))


def denoise(e: DiffusionEncoder, x: dict[str, torch.Tensor], t: int = 999) -> torch.Tensor:
    embedded = e.controlnet.controlnet_cond_embedding(x["image"])
    return e._denoise(x["latents"], t, x["text"], embedded)


def hook_count(module: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@torch.no_grad()
@LAYOUTS
def test_capture_leaves_the_output_bitwise_unchanged(blocks):
    e, x = encoder(blocks), inputs()
    before = denoise(e, x)
    with capture_features(e.unet, guided=False):
        during = denoise(e, x)
    after = denoise(e, x)
    assert torch.equal(before, during)
    assert torch.equal(before, after)


@torch.no_grad()
def test_shapes_of_the_mini_layout():
    e, x = encoder(), inputs()
    with capture_features(e.unet, guided=False) as capture:
        denoise(e, x)
    features = capture.features
    assert features.h.shape == (2, 32, 4, 4)
    assert [f.shape for f in features.f] == [(2, 24, 16, 16), (2, 16, 16, 16)]
    assert [a.shape[2:] for a in features.a] == [(64, TOKENS), (256, TOKENS)]


@torch.no_grad()
def test_shapes_of_the_stable_diffusion_layout():
    e, x = encoder(SD_BLOCKS), inputs()
    with capture_features(e.unet, guided=False) as capture:
        denoise(e, x)
    features = capture.features
    assert decoder_blocks_with_attention(e.unet) == [1, 2, 3]
    assert features.h.shape == (2, 32, 2, 2)
    assert [f.shape[1:] for f in features.f] == [(24, 8, 8), (16, 16, 16), (8, 16, 16)]
    assert [a.shape[2] for a in features.a] == [16, 64, 256]


@torch.no_grad()
@LAYOUTS
def test_attention_rows_sum_to_one(blocks):
    e, x = encoder(blocks), inputs()
    with capture_features(e.unet, guided=False) as capture:
        denoise(e, x)
    for a in capture.features.a:
        assert a.min() >= 0
        assert (a.sum(-1) - 1).abs().max() < 1e-5


@torch.no_grad()
def test_attention_is_what_the_layer_computes():
    """softmax(q kᵀ) times the layer's own values, projected, is the layer's own output."""
    e, x = encoder(), inputs()
    layer = e.unet.up_blocks[2].attentions[0].transformer_blocks[0].attn2
    last = len(e.unet.up_blocks[2].attentions)
    seen = {}
    layer.register_forward_hook(lambda m, args, kwargs, out: seen.update(out=out), with_kwargs=True)
    with capture_features(e.unet, guided=False) as capture:
        denoise(e, x)
        maps = capture.a[2][0]
    assert len(capture.a[2]) == last == 2
    v = layer.to_v(x["text"]).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
    out = layer.to_out[0]((maps @ v).transpose(1, 2).flatten(2))
    assert torch.allclose(out, seen["out"], atol=1e-5)


@torch.no_grad()
def test_h_carries_the_mask_at_the_noisiest_step():
    e, x = encoder(), inputs()
    other = x | {"image": x["image"].flip(-1)}
    h = [run(e, y, exit_step=0)[-1].features.h for y in (x, other)]
    assert (h[0] - h[1]).abs().max() > 1e-3
    # The middle block itself does not know the mask yet: hooking it would miss the condition.
    seen = []
    e.unet.mid_block.register_forward_hook(lambda m, args, out: seen.append(out))
    for y in (x, other):
        run(e, y, exit_step=0)
    assert torch.equal(seen[0], seen[1])


@torch.no_grad()
def test_h_is_mid_block_plus_residual():
    e, x = encoder(), inputs()
    seen = []
    e.unet.mid_block.register_forward_hook(lambda m, args, out: seen.append(out))
    h = run(e, x, exit_step=0)[-1].features.h
    noise = e.initial_noise(2, torch.Generator().manual_seed(3))
    _, mid = e.controlnet(noise, e_timestep(e), x["text"], x["image"], return_dict=False)
    assert torch.allclose(h, seen[0] + mid, atol=1e-6)


def e_timestep(e: DiffusionEncoder) -> torch.Tensor:
    e.scheduler.set_timesteps(4)
    return e.scheduler.timesteps[0]


@torch.no_grad()
def test_guidance_gives_the_conditional_half():
    e, x = encoder(), inputs()
    both = {name: torch.cat([value] * 2) for name, value in x.items()}
    both["text"][:2] = 0
    with capture_features(e.unet, guided=True) as guided:
        denoise(e, both, 500)
    with capture_features(e.unet, guided=False) as plain:
        denoise(e, x, 500)
    for a, b in zip(
        (guided.features.h, *guided.features.f, *guided.features.a),
        (plain.features.h, *plain.features.f, *plain.features.a),
        strict=True,
    ):
        assert a.shape == b.shape
        assert torch.allclose(a, b, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("guide_condition", [True, False])
def test_guidance_leads_away_from_no_words_and_perhaps_from_no_condition(guide_condition):
    e, x = encoder(), inputs()
    e.guide_condition, t = guide_condition, e_timestep(e)
    noise, empty = e.initial_noise(2, torch.Generator().manual_seed(3)), torch.zeros(2, TOKENS, 24)
    conditional = denoise(e, x | {"latents": noise}, t)
    if guide_condition:
        unconditional = e.unet(noise, t, empty).sample
    else:
        unconditional = denoise(e, x | {"latents": noise, "text": empty}, t)
    guided = unconditional + 3 * (conditional - unconditional)
    e.scheduler.set_timesteps(4)
    expected = e.scheduler.step(guided, t, noise).prev_sample
    found = run(e, x, guidance_scale=3.0)[0].latents
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(conditional, unconditional, atol=1e-3)


@torch.no_grad()
def test_hooks_come_off_even_after_an_exception():
    e, x = encoder(), inputs()
    before = hook_count(e.unet)
    with capture_features(e.unet, guided=False):
        assert hook_count(e.unet) > before
    assert hook_count(e.unet) == before
    with pytest.raises(RuntimeError), capture_features(e.unet, guided=False):
        e.unet(x["latents"], 999, x["text"][..., :5])  # wrong width
    assert hook_count(e.unet) == before


def test_reading_before_a_pass_is_an_error():
    with (
        capture_features(unet(), guided=False) as capture,
        pytest.raises(RuntimeError, match="no U-Net pass"),
    ):
        _ = capture.features


@pytest.mark.parametrize(("exit_step", "passes"), [(0, 1), (2, 3), (3, 4), (None, 4)])
def test_exit_step_costs_as_many_passes(exit_step, passes):
    e, x = encoder(), inputs()
    batches = []
    e.unet.register_forward_pre_hook(lambda m, args: batches.append(len(args[0])))
    states = run(e, x, exit_step=exit_step, guidance_scale=3.0)
    assert len(batches) == len(states) == passes
    assert [s.step for s in states] == list(range(passes))
    reaches_the_end = passes == 4
    assert (states[-1].latents is not None) == reaches_the_end
    assert batches[-1] == (4 if reaches_the_end else 2)  # an early exit skips the empty prompt
    assert states[-1].features is not None


def test_early_exit_sees_the_same_features_as_the_full_run():
    e, x = encoder(), inputs()
    full = run(e, x, capture_steps=[0, 1, 2, 3])
    for step in range(3):
        early = run(e, x, exit_step=step)[-1].features
        assert torch.allclose(full[step].features.h, early.h, atol=1e-3)
        assert torch.allclose(full[step].features.a[1], early.a[1], atol=1e-4)


def test_only_wanted_steps_are_captured():
    states = run(encoder(), inputs(), capture_steps=[1])
    assert [s.features is not None for s in states] == [False, True, False, False]


def test_deterministic_per_seed_and_per_sample():
    e, x = encoder(), inputs()
    first, again, other = (run(e, x, seed)[-1].latents for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    generators = [torch.Generator().manual_seed(s) for s in (10, 11)]
    pair = e.initial_noise(2, generators)
    assert torch.equal(pair[1:], e.initial_noise(1, torch.Generator().manual_seed(11)))


@torch.no_grad()
def test_condition_is_embedded_once_and_nothing_else_changes():
    e, x = encoder(), inputs()
    seen = []
    layers = e.controlnet.controlnet_cond_embedding
    layers.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    run(e, x)
    assert seen == [2]
    assert e.controlnet.controlnet_cond_embedding is layers
    down, mid = e.controlnet(x["latents"], 999, x["text"], x["image"], return_dict=False)
    plain = e.unet(
        x["latents"],
        999,
        x["text"],
        down_block_additional_residuals=down,
        mid_block_additional_residual=mid,
    )
    assert torch.equal(plain.sample, denoise(e, x))


def test_interleaved_processes_do_not_disturb_each_other():
    e, x = encoder(), inputs()
    other = x | {"image": x["image"].flip(-1)}
    alone = [run(e, y)[-1].latents for y in (x, other)]
    empty = torch.zeros(1, TOKENS, 24)
    processes = [
        e.reverse_process(
            y["text"],
            empty,
            y["image"],
            generator=torch.Generator().manual_seed(3),
            num_inference_steps=4,
        )
        for y in (x, other)
    ]
    states = list(zip(*processes, strict=True))[-1]
    for state, latents in zip(states, alone, strict=True):
        assert torch.equal(state.latents, latents)


def test_scheduler_is_never_changed():
    e = encoder()
    before = e.scheduler.timesteps.clone()
    run(e, inputs(), num_inference_steps=3)
    assert torch.equal(e.scheduler.timesteps, before)


def test_terminal_step_is_pure_noise():
    states = run(encoder(), inputs())
    assert states[0].timestep == 999
    assert scheduler().alphas_cumprod[-1] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exit_step": 4}, "4"),
        ({"exit_step": -1}, "-1"),
        ({"num_inference_steps": 0}, "0"),
        ({"capture_steps": [9]}, r"\[9\]"),
    ],
)
def test_bad_steps(options, message):
    with pytest.raises(ValueError, match=message):
        run(encoder(), inputs(), **options)
