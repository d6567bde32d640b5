"""A folder of weights as the trainer makes them."""

from dataclasses import replace

import pytest
import torch
from tiny_priors import SMALL

from data_prep.priors.recipe import Folders
from data_prep.priors.trainer import train
from dmgi_lib.recognizers import Recognizer


@pytest.fixture(scope="session")
def weights_of_loss_net(tmp_path_factory):
    """A weight folder that holds an untrained loss network alone."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    Recognizer(channels=(4, 8, 8, 8, 8)).half().save_pretrained(folder / "loss_net")
    return folder


@pytest.fixture(scope="session")
def trained(tiny_faces, weights_of_loss_net):
    """Two or three steps of every network, in the order in which they need each other."""
    folder = weights_of_loss_net
    with_features = replace(SMALL["autoencoder"], perceptual=folder / "loss_net")
    scribbles = replace(SMALL["controlnet"], condition="scribble", start=folder / "controlnet")
    for name, settings in (
        ("judge_attributes", SMALL["judge_attributes"]),
        ("stylegan2", SMALL["stylegan2"]),
        ("text_image", SMALL["text_image"]),
        ("autoencoder", with_features),
        ("unet", SMALL["unet"]),
        ("controlnet", SMALL["controlnet"]),
        ("controlnet_scribble", scribbles),
        ("mask_encoder", SMALL["mask_encoder"]),
    ):
        steps = 3 if name == "stylegan2" else 2  # both phases
        settings = replace(settings, max_steps=steps, minutes=30.0, seed=0)
        folders = Folders(tiny_faces, folder, run_dir=folder / "runs" / name)
        network = name.removesuffix("_scribble")
        train(network, settings, folders, "cpu")
    return folder
