"""Decoding a kept process gives what the pipeline gives at that exit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_devices import fake_cuda, on_cuda
from tiny_evaluation import ground_truth
from tiny_models import controlnet, generator, mapping_network, pipeline, style_modulation

from dmgi_lib.evaluation.draw import draw
from dmgi_lib.evaluation.step_study import StepStudy


@pytest.fixture(scope="module")
def pipe():
    torch.set_num_threads(1)
    m = mapping_network(seed=8)
    torch.nn.init.normal_(m.fc.weight, std=0.2)
    return pipeline(controlnet_scribble=controlnet(seed=9), mapping_network_scribble=m)


@pytest.fixture(scope="module")
def truth():
    return ground_truth(3)


@pytest.fixture(scope="module")
def study(pipe, truth):
    return StepStudy(pipe, truth, range(4), seed=5, batch_size=2)


@pytest.mark.parametrize("step", [0, 2, 3])
def test_every_step_is_the_exit_at_that_step(pipe, truth, study, step):
    images, denoised = draw(pipe, truth.prompts, truth.masks, step, seed=5)
    found = study.images(step, pipe.mapping_network, pipe.style_modulation)
    assert (found - images).abs().max() < 1e-3
    if step == 3:
        assert (study.diffusion_images - denoised).abs().max() < 1e-3


def test_m_alone_and_modulation(pipe, study):
    w_m = study.codes(1, pipe.mapping_network)
    assert torch.equal(w_m, pipe.mapping_network(study.features[1].h))
    gamma, beta = study.modulation(1, pipe.style_modulation)
    both = study.codes(1, pipe.mapping_network, pipe.style_modulation)
    assert torch.equal(both, w_m * gamma + beta)  # as predicted: drawing truncates them


def test_early_and_leaking_studies(pipe, truth):
    early = StepStudy(pipe, truth, [0])
    assert early.diffusion_images is None and list(early.features) == [0]
    leak = StepStudy(pipe, truth, [0, 3], leaking=True)
    honest = StepStudy(pipe, truth, [0, 3])
    scale = honest.features[0].h.abs().max()
    first, last = ((leak.features[k].h - honest.features[k].h).abs().max() / scale for k in (0, 3))
    assert first < 1e-4 < 0.05 < last


def test_scribbles(pipe, truth):
    truth = replace(truth, scribbles=(truth.masks == 13).to(torch.uint8) * 255)
    study = StepStudy(pipe, truth, [0], condition="scribble")
    drawn = draw(pipe, truth.prompts, truth.scribbles, 0, condition="scribble")[0]
    assert (study.images(0, pipe.mapping_network_scribble) - drawn).abs().max() < 1e-3


def test_one_noise_for_all(pipe, truth):
    same = replace(truth.taken(np.array([0, 0])), prompts=truth.prompts[:1] * 2)
    shared = StepStudy(pipe, same, [0], seed=[5, 5]).features[0].h
    assert (shared[0] - shared[1]).abs().max() < 1e-5
    apart = StepStudy(pipe, same, [0], seed=5).features[0].h
    assert (apart[0] - apart[1]).abs().max() > 1e-3


def test_networks_on_a_gpu_decode_features_of_the_cpu(pipe, truth):
    """As in ablations, where the trainer has put M and T there."""
    study, m, t, G = StepStudy(pipe, truth, [0]), mapping_network(), style_modulation(), generator()
    study.pipe = pipeline(generator=G)
    with fake_cuda():
        for network in (m, t, G):
            on_cuda(network)
        assert study.codes(0, m, t).device.type == "cuda"
        images = study.images(0, m, t)
    assert images.device.type == "cpu" and images.shape == (3, 3, 128, 128)
