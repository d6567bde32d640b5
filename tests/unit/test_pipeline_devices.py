"""A pipeline call on other devices and in other dtypes than a CPU's float32."""

import pytest
import torch
from diffusers import DDIMScheduler
from tiny_devices import fake_cuda, on_cuda
from tiny_models import face_mask, pipeline, scheduler
from torch._subclasses.fake_tensor import unset_fake_temporarily

from dmgi_lib import DMGIPipeline

PROMPT = "a smiling young woman with blond hair"
HALF = [torch.bfloat16, torch.float16]


class KnownSteps(DDIMScheduler):
    """A scheduler whose steps are numbers, since fake tensors hold none to decide by."""

    def set_timesteps(self, num_inference_steps, device=None):
        with unset_fake_temporarily():
            super().set_timesteps(num_inference_steps)
            self.timesteps = self.timesteps.tolist()

    def __deepcopy__(self, memo):
        with unset_fake_temporarily():
            return KnownSteps.from_config(self.config)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    pipeline().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("exit_step", [0, None])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_a_call_stays_on_the_device(exit_step, dtype):
    pipe = pipeline(scheduler=KnownSteps.from_config(scheduler().config))
    mask = face_mask().numpy()
    with fake_cuda():
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                on_cuda(part, dtype)
        out = pipe(
            [PROMPT] * 2,
            mask=mask,
            exit_step=exit_step,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
            return_attention=True,
        )
    assert out.images.shape == (2, 3, 128, 128)
    assert out.images.device.type == "cuda" and out.images.dtype == torch.float32
    assert (out.diffusion_images is None) == (exit_step == 0)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("exit_step", [0, None])
def test_half_precision_follows_full_precision(saved, dtype, exit_step):
    options = {"mask": face_mask(), "exit_step": exit_step, "output_type": "pt"}
    full = DMGIPipeline.from_pretrained(saved)(PROMPT, **options)
    pipe = DMGIPipeline.from_pretrained(saved, dtype=dtype)
    assert {pipe.unet.dtype, pipe.generator.dtype, pipe.mapping_network.dtype} == {dtype}
    half = pipe(PROMPT, **options)
    assert half.images.dtype == torch.float32 and half.images.isfinite().all()
    assert (half.images - full.images).abs().mean() < 0.02 * full.images.std()


def test_torch_dtype_is_another_name_of_dtype(saved):
    for options in ({"torch_dtype": torch.float16}, {"dtype": torch.float16}):
        assert DMGIPipeline.from_pretrained(saved, **options).unet.dtype == torch.float16
    both = DMGIPipeline.from_pretrained(saved, dtype=torch.float16, torch_dtype=torch.float16)
    assert both.vae.dtype == torch.float16
    with pytest.raises(ValueError, match="dtype came as torch.float16 and torch_dtype as"):
        DMGIPipeline.from_pretrained(saved, dtype=torch.float16, torch_dtype=torch.float32)
    with pytest.raises(ValueError, match="dtype came as torch.int8; expected one of"):
        DMGIPipeline.from_pretrained(saved, dtype=torch.int8)


def test_layout_for_cpus_waits_for_the_first_call(saved):
    pipe = DMGIPipeline.from_pretrained(saved)
    weight = pipe.unet.conv_in.weight
    assert weight.is_contiguous()  # so that a move to another device copies nothing twice
    pipe(PROMPT, mask=face_mask(), exit_step=0)
    assert pipe.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert not pipe.unet.conv_in.weight.is_contiguous()
