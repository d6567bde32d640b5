"""The search for directions, on a G and readers small enough to know the answer."""

from types import SimpleNamespace

import pytest
import torch
from tiny_device import other_device
from tiny_models import generator

from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.editing import EDITS
from dmgi_lib.generators.eg3d.cameras import look_at
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.edit_directions import (
    YAW_STEP,
    Reader,
    Search,
    SearchConfig,
    YawProbe,
    asked_logit,
    axis_reading,
    other_attributes,
    sample_yaws,
)

SMILE, HAT = (ATTRIBUTES.index(name) for name in ("Smiling", "Wearing_Hat"))
CONFIG = SearchConfig(
    random_faces=200, steps=60, batch_size=8, learning_rate=0.05, others=4.0, picture=0.1
)


class LinearG:
    """Its pictures are the mean code: numbers 0 and 1 of w are what the reader sees."""

    num_ws = 3
    config = SimpleNamespace(z_dim=4)
    mean_latent = torch.zeros(4)

    def mapping(self, z):
        return z[:, None].repeat(1, self.num_ws, 1)

    def synthesis(self, codes, noise_mode):
        return codes.mean(1)[:, :, None, None]


class LinearReader:
    """Number 0 is the smile, and number 1 the hat, which it is mixed with."""

    columns = [SMILE, HAT]

    def __call__(self, pictures):
        w = pictures[:, :, 0, 0]
        columns = [torch.zeros(len(w))] * len(ATTRIBUTES)
        columns[SMILE], columns[HAT] = w[:, 0] + w[:, 1], 3 * w[:, 1]
        identity = torch.ones(len(w), 2) / 2**0.5
        return torch.stack(columns, 1), 9 * w[:, 2], identity


@pytest.fixture
def search():
    codes = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(1))
    return Search(LinearG(), LinearReader(), codes, CONFIG)


def test_the_start_holds_what_goes_with_its_own_attribute_alone(search):
    start = search.root @ search.start()["smile"]
    assert start[0] > 0.5
    assert start[1].abs() < 0.3 * start[0] and start[3].abs() < 0.3 * start[0]
    turned = search.root @ search.start()["yaw"]
    assert turned[2] > 0.5 and turned[:2].abs().max() < 0.3 * turned[2]


def test_the_fit_reaches_what_is_asked_both_ways_and_leaves_the_rest(search):
    smile, loss = search.fit("smile", torch.zeros(4))
    step, codes = smile.mean(0), search.codes.mean(1)
    for sign in (1, -1):
        assert (sign * (codes + sign * step)[:, :2].sum(1) > 0).float().mean() > 0.95
    assert step[0] > 1 and step[1:].abs().max() < 0.3 * step[0]
    untouched = search.loss("smile", torch.zeros(3, 4), search.codes, torch.ones(50)).mean()
    assert loss < 0.5 * untouched
    yaw, _ = search.fit("yaw", torch.zeros(4))
    assert 9 * yaw.mean(0)[2] == pytest.approx(YAW_STEP, rel=0.1)


def test_yaw_is_that_of_the_camera_and_is_read_from_features():
    yaws = torch.linspace(-40, 40, 60)
    faces = SimpleNamespace(cameras=look_at(yaws, 10.0))
    assert torch.allclose(sample_yaws(faces, list(range(60))), yaws, atol=1e-3)
    features = torch.randn(60, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    features[:, 2, :, :4] += yaws[:, None, None] / 10
    read = YawProbe(features[::2], yaws[::2])(features[1::2])
    assert (read - yaws[1::2]).abs().mean() < 8


def test_a_reader_reads_what_the_loss_net_does_with_gradients():
    network = Recognizer((4, 4, 4, 4, 8)).eval()
    images = torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    reader = Reader(network, images, torch.tensor([-20.0, -5.0, 5.0, 20.0]))
    pictures = images.clone().requires_grad_(True)
    logits, yaw, identity = reader(pictures)
    assert torch.allclose(logits, network.attributes(images), atol=1e-5)
    assert torch.allclose(identity, network.identity(images), atol=1e-5)
    (logits.sum() + yaw.sum()).backward()
    assert pictures.grad.abs().sum() > 0
    assert [ATTRIBUTES[i] for i in reader.columns] == list(network.config.attributes)


def test_an_asked_attribute_may_be_false():
    logits = torch.zeros(1, len(ATTRIBUTES))
    logits[0, ATTRIBUTES.index("Young")] = 3.0
    assert asked_logit(("Young", False), logits) == -3
    assert axis_reading("age", logits, torch.zeros(1)) == -3
    assert axis_reading("yaw", logits, torch.tensor([30.0])) == 2


@pytest.mark.parametrize("name", EDITS)
def test_others_are_all_but_its_own_and_its_kin(name):
    others = {ATTRIBUTES[i] for i in other_attributes(name, list(range(len(ATTRIBUTES))))}
    edit = EDITS[name]
    own = {claim[0] for claim in (edit.more, edit.less) if claim} | {*edit.kin}
    assert others == {*ATTRIBUTES} - own


def test_the_search_runs_on_the_device_of_its_networks():
    with other_device() as device:
        network, G = Recognizer((4, 4, 4, 4, 8)).to(device), generator().to(device)
        reader = Reader(network, torch.randn(4, 3, 128, 128), torch.linspace(-20, 20, 4))
        config = SearchConfig(random_faces=4, steps=1, batch_size=2)
        search = Search(G, reader, torch.randn(3, 12, 16).to(device), config)
        for name, start in search.start().items():
            found, _ = search.fit(name, start)
            assert found.device == device
