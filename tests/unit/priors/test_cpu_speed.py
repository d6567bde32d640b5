"""Group norm for channels last: the same numbers as PyTorch's."""

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

from data_prep.priors.cpu_speed import FastGroupNorm, placed, use_fast_group_norm


def test_fast_group_norm_equals_group_norm():
    torch.manual_seed(0)
    usual = nn.GroupNorm(4, 16, eps=1e-6)
    nn.init.normal_(usual.weight)
    nn.init.normal_(usual.bias)
    fast = use_fast_group_norm(nn.Sequential(copy.deepcopy(usual)))
    assert type(fast[0]) is FastGroupNorm
    x, dy = 2.0 * torch.randn(3, 16, 6, 5) + 1.0, torch.randn(3, 16, 6, 5)
    results = []
    for norm in (usual, fast):
        given = x.clone(memory_format=torch.channels_last).requires_grad_()
        y = norm(given)
        y.backward(dy)
        grads = [p.grad for p in norm.parameters()]
        results.append([y.detach(), given.grad, *grads])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_fast_group_norm_keeps_bf16_accuracy():
    torch.manual_seed(0)
    usual = nn.GroupNorm(2, 8)
    fast = use_fast_group_norm(nn.Sequential(copy.deepcopy(usual)))
    x, dy = torch.randn(2, 8, 32, 32) + 2.0, torch.randn(2, 8, 32, 32)
    results = []
    for norm, dtype in ((usual, torch.float32), (fast, torch.bfloat16)):
        given = x.to(dtype, memory_format=torch.channels_last).requires_grad_()
        norm(given).backward(dy.to(dtype))
        grads = [given.grad, *(p.grad for p in norm.parameters())]
        results.append([norm(given).detach(), *grads])
    for expected, got in zip(*results, strict=True):
        assert ((got.float() - expected).norm() / expected.norm()).item() < 0.01


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_tricks_for_cpus_stay_on_cpus(device):
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, attention_head_dim=2,
        cross_attention_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1,
    )  # fmt: skip
    model = placed(unet, torch.device(device))
    on_cpu = device == "cpu"
    assert {p.device.type for p in model.parameters()} == {device}
    assert any(type(m) is FastGroupNorm for m in model.modules()) == on_cpu
    plain = {type(p) is AttnProcessor for p in model.attn_processors.values()}
    assert plain == {on_cpu}
    weight = model.down_blocks[0].resnets[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == on_cpu
