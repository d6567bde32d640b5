"""The small CLIP: its words, its text tower, and what stylised pictures teach it."""

import shutil

import pytest
import torch
from tiny_priors import SMALL
from transformers import CLIPModel, CLIPTextModel, PreTrainedTokenizerFast

from data_prep.priors.recipe import Folders
from data_prep.priors.text_image import TextImage, embed_text
from dmgi_lib.prompts import encode_text, tokenize


def test_the_shipped_text_encoder_is_the_text_tower(trained):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(trained / "text_encoder", dtype=torch.float32).eval()
    clip = CLIPModel.from_pretrained(trained / "image_encoder", dtype=torch.float32).eval()
    ids = tokenize(tokenizer, ["a smiling woman with red hair"]).ids
    states = encode_text(encoder, ids)
    assert states.shape == (1, 40, 32)
    torch.testing.assert_close(states, clip.text_model(ids).last_hidden_state)
    # pooled at <eos>: what follows it does not count, and the last word does
    eos = int((ids[0] == tokenizer.eos_token_id).nonzero()[0, 0])
    changed = ids.clone()
    changed[0, eos + 1 :] = 5
    pooled = clip.text_model(ids).pooler_output
    torch.testing.assert_close(clip.text_model(changed).pooler_output, pooled)
    red, gray = embed_text(clip, tokenizer, ["a man with red hair", "a man with gray hair"])
    assert not torch.allclose(red, gray)


def test_the_tokenizer_knows_the_words_of_its_captions_only(trained):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained / "tokenizer")
    assert tokenizer.model_max_length == 40
    ids = tokenizer("A MAN, with green hair.")["input_ids"]
    words = ["<bos>", "a", "man", ",", "with", "<unk>", "hair", ".", "<eos>"]
    assert tokenizer.convert_ids_to_tokens(ids) == words
    assert tokenizer.eos_token_id != 2
    long = tokenizer("man " * 60, truncation=True, max_length=40)["input_ids"]
    assert len(long) == 40 and long[-1] == tokenizer.eos_token_id


def test_stylised_renders_teach_words_only(tiny_faces, tmp_path):
    shutil.copytree(tiny_faces, tmp_path / "faces")
    folders, cpu = Folders(tmp_path / "faces", tmp_path), torch.device("cpu")
    alone = TextImage(SMALL["text_image"], folders, cpu)
    shutil.copytree(tmp_path / "faces" / "train", tmp_path / "faces" / "styles")
    both = TextImage(SMALL["text_image"], folders, cpu)
    n = alone.training_images
    assert both.training_images == 2 * n == len(both.offsets) - 1 == len(both.images)
    assert torch.equal(both.attributes[:n], alone.attributes)
    assert (both.attributes[n:] == -1).all() and (alone.attributes >= 0).any()


def test_half_built_stylised_renders_are_not_passed_over(tiny_faces, tmp_path):
    shutil.copytree(tiny_faces, tmp_path / "faces")
    shutil.copytree(tmp_path / "faces" / "train", tmp_path / "faces" / "styles")
    shard = next((tmp_path / "faces" / "styles").glob("*.parquet"))
    shard.rename(shard.with_name("00000-of-00002.parquet"))
    folders, cpu = Folders(tmp_path / "faces", tmp_path), torch.device("cpu")
    with pytest.raises(FileNotFoundError, match="holds 1 of 2 shards"):
        TextImage(SMALL["text_image"], folders, cpu)
    shard.with_name("00000-of-00002.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="holds no parquet shards"):
        TextImage(SMALL["text_image"], folders, cpu)
