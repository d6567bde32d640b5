from dataclasses import asdict

import pytest
import torch
from tiny_models import style_modulation

from dmgi_lib.presets import MINI, PAPER
from dmgi_lib.style_modulation import (
    ModulationConfig,
    StyleModulationNetwork,
    modulate,
    pool_attention,
    truncate_detail,
)


def features(batch: int = 2) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    rng = torch.Generator().manual_seed(0)
    f = [torch.randn(batch, c, 16, 16, generator=rng) for c in (24, 16)]
    maps = [torch.rand(batch, 1, s, s, generator=rng) for s in (8, 16)]
    return f, maps


def randomised(**options) -> StyleModulationNetwork:
    network = style_modulation(**options)
    torch.manual_seed(1)
    for stack in network.stacks.values():
        torch.nn.init.normal_(stack[-1].weight)
    return network


@pytest.mark.parametrize("paths", ["both", "local", "averaged"])
@pytest.mark.parametrize("average", ["blocks", "space"])
def test_starts_as_the_identity(paths, average):
    network = style_modulation(paths=paths, average=average)
    gamma, beta = network(*features())
    assert gamma.shape == beta.shape == (2, 12, 16)
    w = torch.randn(2, 12, 16)
    assert torch.equal(modulate(w, gamma, beta), w)


def test_modulate_by_hand():
    w, gamma, beta = (torch.full((1, 1, 2), v) for v in (3.0, 2.0, -1.0))
    assert modulate(w, gamma, beta).tolist() == [[[5.0, 5.0]]]


def test_truncation_of_detail_moves_the_last_row_alone():
    w = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    w_avg = torch.tensor([1.0, -2.0])
    assert truncate_detail(w, w_avg, 1.0) is w
    half = truncate_detail(w, w_avg, 0.5)
    assert torch.equal(half[:, 0], w[:, 0])
    assert half[:, 1].tolist() == [[2.0, 1.0], [4.0, 3.0]]
    assert truncate_detail(w, w_avg, 0.0)[:, 1].tolist() == [[1.0, -2.0]] * 2


@pytest.mark.parametrize("paths", ["both", "local", "averaged"])
def test_maps_gate_the_features(paths):
    """Where A is zero everywhere, F ⊙ A is zero, and the features must not matter."""
    network = randomised(paths=paths)
    f, maps = features()
    zeros = [torch.zeros_like(m) for m in maps]
    other = [torch.randn_like(x) for x in f]
    assert torch.equal(network(f, zeros)[0], network(other, zeros)[0])
    assert not torch.allclose(network(f, maps)[0], network(other, maps)[0])


def test_average_over_blocks_by_hand():
    network = style_modulation()
    ones = torch.ones(1, 8, 16, 16)
    product = network._averaged([ones, 3 * ones], [ones[:, :1], 5 * ones[:, :1]])
    assert torch.equal(product, 6 * ones)  # mean(1, 3) * mean(1, 5)


def test_average_over_space_is_constant_over_positions():
    network = style_modulation(average="space")
    rng = torch.Generator().manual_seed(0)
    f = [torch.randn(1, 8, 16, 16, generator=rng) for _ in range(2)]
    a = [torch.rand(1, 1, 16, 16, generator=rng) for _ in range(2)]
    product = network._averaged(f, a)
    assert product.shape == (1, 16, 16, 16)
    assert torch.equal(product[:, :, 0, 0], product[:, :, 9, 3])


@pytest.mark.parametrize(("pooled", "same"), [(1, True), (2, False), (4, False)])
def test_pooling_decides_how_much_layout_reaches_the_last_layer(pooled, same):
    end = randomised(pooled=pooled).stacks["local"][-3:]
    x = torch.randn(1, end[-1].in_features // pooled**2, 4, 4)
    for shift in (1, 2):  # within a quarter, and beyond it
        equal = torch.allclose(end(x), end(x.roll(shift, -1)), atol=1e-5)
        assert equal is same


@pytest.mark.parametrize("paths", ["both", "averaged"])
@pytest.mark.parametrize(("edge", "finer"), [(1, 4), (2, 4), (2, 2)])
def test_a_finer_layout_starts_with_the_same_codes(paths, edge, finer):
    network = randomised(paths=paths, pooled=edge)
    network.calibrate(*features(8))
    kept = network.with_layout(finer)
    assert kept.config.pooled == finer and network.config.pooled == edge
    for code, expected in zip(kept(*features()), network(*features()), strict=True):
        torch.testing.assert_close(code, expected)
    with pytest.raises(ValueError, match="1 for a T of"):
        randomised(pooled=2).with_layout(1)


def test_mix_chooses_the_path():
    network = randomised()
    f, maps = features()
    local, averaged = randomised(paths="local"), randomised(paths="averaged")
    for single, name in ((local, "local"), (averaged, "averaged")):
        single.reduce.load_state_dict(network.reduce.state_dict())
        single.stacks[name].load_state_dict(network.stacks[name].state_dict())
    for logit, single in ((100.0, local), (-100.0, averaged)):
        torch.nn.init.constant_(network.mix, logit)
        assert torch.allclose(network(f, maps)[0], single(f, maps)[0], atol=1e-5)


def test_pooling_by_hand():
    a = torch.zeros(1, 2, 4, 3)  # 2 heads, 2x2 positions, 3 tokens
    a[0, 0, 0] = torch.tensor([0.9, 0.1, 0.0])  # token 0 begins the prompt and is no word
    a[0, 1, 0] = torch.tensor([0.2, 0.5, 0.3])
    word_mask = torch.tensor([[False, True, True]])
    (tokens,) = pool_attention([a], word_mask, "tokens")
    (both,) = pool_attention([a], word_mask, "heads_and_tokens")
    assert tokens.shape == (1, 1, 2, 2)
    assert tokens[0, 0, 0, 0] == pytest.approx(0.3)  # head mean of token 1
    assert both[0, 0, 0, 0] == pytest.approx(0.5)
    assert tokens[0, 0, 1, 1] == 0


def test_pooling_ignores_tokens_that_are_no_words():
    a = torch.rand(2, 4, 64, 6, generator=torch.Generator().manual_seed(0))
    word_mask = torch.tensor([[0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    changed = a.clone()
    changed[:, :, :, [0, 3, 4, 5]] = 7.0
    before, after = (pool_attention([x], word_mask)[0] for x in (a, changed))
    assert torch.equal(before, after)
    assert after[1].abs().max() == 0  # no words at all


def test_positions_keep_their_place():
    a = torch.zeros(1, 1, 16, 2)
    a[0, 0, 6, 1] = 1.0  # row 1, column 2 of 4x4
    (pooled,) = pool_attention([a], torch.tensor([[False, True]]))
    assert pooled[0, 0, 1, 2] == 1 and pooled.sum() == 1


def test_calibration_standardises_features_and_maps():
    network = randomised()
    f, maps = features(8)
    f = [5 + 2 * x for x in f]
    maps = [0.01 * m for m in maps]
    network.calibrate(f, maps)
    assert (network.f_mean - 5).abs().max() < 0.5
    assert (network.a_scale * torch.stack([m.mean() for m in maps]) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("preset", [MINI, PAPER])
def test_preset_sizes(preset):
    config = preset.modulation
    network = StyleModulationNetwork(**asdict(config))
    f = [torch.zeros(1, c, 16, 16) for c in config.in_channels]
    maps = [torch.zeros(1, 1, 8, 8) for _ in config.in_channels]
    assert network(f, maps)[0].shape == (1, config.num_ws, config.w_dim)


def test_mini_is_small():
    network = StyleModulationNetwork(**asdict(MINI.modulation))
    assert sum(p.numel() for p in network.parameters()) < 4_000_000


def test_round_trip(tmp_path):
    network = randomised()
    network.calibrate(*features(4))
    network.save_pretrained(tmp_path)
    again = StyleModulationNetwork.from_pretrained(tmp_path)
    assert torch.equal(again(*features())[1], network(*features())[1])


@pytest.mark.parametrize("option", ["pool", "average", "paths"])
def test_bad_options(option):
    with pytest.raises(ValueError, match="'nothing'"):
        ModulationConfig(**{option: "nothing"})


def test_bad_sizes():
    with pytest.raises(ValueError, match="pooled came as 3"):
        ModulationConfig(pooled=3)
    with pytest.raises(ValueError, match="12"):
        ModulationConfig(resolution=12)
