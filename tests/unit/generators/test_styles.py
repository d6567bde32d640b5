import pytest
import torch
from tiny_models import face_mask, pipeline, tiny_eg3d

from dmgi_lib import DMGIPipeline
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator
from dmgi_lib.generators.styles import StyleOffsets, changed_shapes
from dmgi_lib.prompts import named_styles
from dmgi_lib.weight_folder import save_component, write_model_index


def offsets(G, names=("marble", "elf")) -> StyleOffsets:
    """Styles that change every weight."""
    torch.manual_seed(5)
    styles = StyleOffsets(names, changed_shapes(G), rank=2)
    for weight in styles.parameters():
        weight.data.normal_(std=0.3)
    return styles.requires_grad_(False)


def codes(n: int = 2) -> torch.Tensor:
    return torch.randn(n, 12, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def pipe() -> DMGIPipeline:
    torch.set_num_threads(1)
    pipe = pipeline()
    pipe.register_modules(style_offsets=offsets(pipe.generator))
    return pipe


def drawn(pipe, w, style):
    return pipe.edit(w, style=style, output_type="pt").images


def test_new_styles_change_nothing_and_leave_mapping_and_affine_layers_alone(pipe):
    G = pipe.generator
    shapes = changed_shapes(G)
    left = set(dict(G.named_parameters())) - set(shapes)
    assert left and all("affine" in name or name.startswith("mapping") for name in left)
    plain = G.synthesis(codes())
    with StyleOffsets(("marble",), shapes).applied(G, {"marble": 1.0}):
        assert torch.equal(G.synthesis(codes()), plain)


def test_a_style_adds_its_share_to_each_weight_and_G_stays_as_it_was(pipe):
    G, styles = pipe.generator, pipe.style_offsets
    before = {name: weight.clone() for name, weight in G.named_parameters()}
    changes = styles.changes({"marble": 1.0})
    assert all(changes[name].abs().max() > 0 for name in changed_shapes(G))
    with styles.applied(G, {"marble": 0.5, "elf": 1.0}):
        mixed = dict(G.named_parameters())
        for name, elf in styles.changes({"elf": 1.0}).items():
            want = before[name] + 0.5 * changes[name] + elf
            assert torch.allclose(mixed[name], want, atol=1e-6)
    after = dict(G.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_G_is_itself_again_after_a_fault(pipe):
    plain = pipe.generator.synthesis(codes())
    with (
        pytest.raises(ZeroDivisionError),
        pipe.style_offsets.applied(pipe.generator, {"elf": 1.0}),
    ):
        1 / 0  # noqa: B018
    assert torch.equal(pipe.generator.synthesis(codes()), plain)


def test_gradients_reach_the_styles_alone():
    G = pipeline().generator.requires_grad_(False)
    styles = StyleOffsets(("marble", "elf"), changed_shapes(G), rank=2)
    with styles.applied(G, {"elf": 1.0}):
        G.synthesis(codes()).square().mean().backward()
    grads = [w.grad for w in styles.parameters() if w.grad is not None]
    assert grads and all((grad[0] == 0).all() for grad in grads)  # marble's
    assert sum((grad[1] != 0).any().item() for grad in grads) > 10
    assert all(weight.grad is None for weight in G.parameters())


def test_a_call_takes_a_style_by_name_by_shares_or_from_the_prompt(pipe):
    mask, options = face_mask(), {"exit_step": 0, "output_type": "pt"}
    plain = pipe("a young woman", mask=mask, **options)
    marble = pipe("a young woman", mask=mask, style="marble", **options)
    assert torch.equal(plain.latents, marble.latents)
    assert (plain.images - marble.images).abs().mean() > 0.01
    assert plain.styles == [{}] and marble.styles == [{"marble": 1.0}]
    named = pipe("a marble statue of a young woman", mask=mask, **options)
    assert torch.equal(named.images, marble.images)
    assert torch.equal(named.latents, plain.latents)
    for style, same in (({}, plain), ({"marble": 1.0, "elf": 0.0}, marble)):
        out = pipe("a marble statue of a young woman", mask=mask, style=style, **options)
        assert torch.equal(out.images, same.images)
    half = pipe("a young woman", mask=mask, style={"marble": 0.5}, **options)
    assert not torch.equal(half.images, marble.images)


def test_each_prompt_of_a_batch_has_its_own_style(pipe):
    prompts = ["a young woman", "an elf with black hair", "a young woman", "an old man"]
    options = {"mask": face_mask(), "exit_step": 0, "output_type": "pt"}
    out = pipe(prompts, num_images_per_prompt=2, **options)
    assert [bool(style) for style in out.styles] == [False, False, True, True, *[False] * 4]
    for style, rows in (("elf", [2, 3]), (None, [0, 1, 4, 5, 6, 7])):
        assert torch.allclose(out.images[rows], drawn(pipe, out.latents[rows], style), atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "style", "rest"),
    [
        ("a marble statue of an old man", "marble", "an old man"),
        ("A Marble Statue of an old man.", "marble", "an old man"),
        ("an old man, a marble sculpture", "marble", "an old man"),
        ("a greek statue", "marble", "a person"),
        ("a portrait of an elf with blond hair", "elf", "a portrait of a person with blond hair"),
        ("a silver hair elf", "elf", "a person"),
        ("an old man", None, "an old man"),
        ("a painting of a myself", None, "a painting of a myself"),
    ],
)
def test_words_of_a_style_are_taken_out_of_the_prompt(prompt, style, rest):
    known = ("marble", "elf") if style else ("marble",)
    if "painting" in prompt:
        with pytest.warns(UserWarning, match=r"asks for a style \(a painting of\)"):
            assert named_styles([prompt], known) == ([style], [rest])
    else:
        assert named_styles([prompt], known) == ([style], [rest])


@pytest.mark.parametrize(
    ("style", "word"),
    [
        ("granite", "style came as 'granite'; expected one of .*marble"),
        ({"marble": 2}, "style marble came as 2; expected a number from 0 to 1.5"),
        ({"marble": float("nan")}, "style marble came as nan"),
        ({"marble": -1}, "style marble came as -1"),
    ],
)
def test_bad_styles_are_refused_before_any_work(pipe, style, word):
    with pytest.raises(ValueError, match=word):
        pipe("a man", mask=face_mask(), style=style)
    with pytest.raises(ValueError, match=word):
        pipe.edit(codes(), style=style)


def test_a_model_without_styles_and_styles_of_another_G_say_so(pipe):
    with pytest.raises(ValueError, match=r"no styles\. Train them .*trainer style_offsets"):
        pipeline().edit(codes(), style="marble")
    other = StyleGAN2Generator(
        z_dim=16, w_dim=16, img_resolution=128, mapping_layers=2, channel_base=512, channel_max=12
    )
    with (
        pytest.raises(ValueError, match="of another generator: this one has no synthesis"),
        pipe.style_offsets.applied(other, {"elf": 1.0}),
    ):
        pass


def test_heads_are_styled_from_all_sides():
    G = tiny_eg3d()
    pipe = pipeline(generator=G)
    pipe.register_modules(style_offsets=offsets(G))
    w = torch.zeros(1, G.num_ws, len(G.mean_latent))
    plain, styled = (pipe.render(w, yaw=10, style=style)[0] for style in (None, "marble"))
    assert plain.tobytes() != styled.tobytes()


def test_styles_come_back_from_a_folder(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "tiny")
    save_component(pipe.style_offsets, tmp_path / "tiny" / "style_offsets", "# Styles\n")
    assert write_model_index(tmp_path / "tiny")["style_offsets"] == ["dmgi_lib", "StyleOffsets"]
    again = DMGIPipeline.from_pretrained(tmp_path / "tiny")
    assert again.style_offsets.names == ("marble", "elf")
    difference = drawn(again, codes(), "elf") - drawn(pipe, codes(), "elf")
    assert difference.abs().max() < 0.05  # stored in half precision
