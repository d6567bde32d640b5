"""Table 1's columns for photographs: the parser by hand, and what each absent part says."""

import json

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from tiny_photo_judges import save_parser
from tiny_shards import encoded

from data_prep.shard_writer import write_split
from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.evaluation import photo_judges
from dmgi_lib.evaluation.photo_judges import arcface, face_parser, inception_fid, lpips_vgg, parse
from dmgi_lib.masks import CLASSES, mask_to_image


class OfColours(torch.nn.Module):
    """Reads class 13 where a picture is bright, 1 elsewhere, at a quarter of the size."""

    def forward(self, x):
        bright = (x.mean(1, keepdim=True)[:, :, ::4, ::4] > 0).float()
        logits = torch.zeros(len(x), len(CLASSES), *bright.shape[2:])
        logits[:, 13:14], logits[:, 1:2] = bright, 0.5
        return type("Output", (), {"logits": logits})()


@pytest.fixture
def faces(tmp_path):
    """Two test samples of 64 px, skin on the left and hair on the right; the second is drawn."""
    ids = np.ones((64, 64), np.uint8)
    ids[:, 32:] = 13
    samples = []
    for i in range(2):
        record = {"id": f"{i:06d}", "identity": i, "captions": ["a woman"], "attributes": {}}
        picture = encoded(np.where(ids == 13, 250, 5)[..., None].repeat(3, 2).astype(np.uint8))
        mask = encoded(mask_to_image(torch.from_numpy(ids)))
        samples.append(record | {"image": picture, "mask": mask})
    write_split(tmp_path / "faces" / "test", samples)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    pixels = np.full((128, 128, 3), 5, np.uint8)
    pixels[:, 96:] = 250  # hair in a quarter, wanted in a half
    Image.fromarray(pixels).save(pictures / "000001.png")
    return FaceDataset(tmp_path / "faces", "test"), pictures


def test_accuracy_and_iou_by_hand(faces):
    dataset, pictures = faces
    numbers = photo_judges.measure(pictures, dataset, parser=OfColours())
    assert list(numbers) == ["SSIM", "ACC", "mIoU", "N"] and numbers["N"] == 1
    # of 64 columns 16 are hair in both, 32 skin in both, 16 hair read as skin
    assert numbers["ACC"] == pytest.approx(75.0, abs=0.8)
    assert numbers["mIoU"] == pytest.approx(100 * (16 / 32 + 32 / 48) / 2, abs=0.8)


def test_identity_and_metrics_see_picture_and_truth(faces):
    dataset, pictures = faces
    seen = {}

    class Metric(torch.nn.Module):
        def update(self, *images, real=None):
            seen.setdefault(real, []).append(images)

        def compute(self):
            return torch.tensor(0.25)

    unit = torch.tensor([[0.6, 0.8]])
    numbers = photo_judges.measure(
        pictures,
        dataset,
        embed=lambda x: unit if x.mean() < -0.2 else torch.tensor([[1.0, 0.0]]),
        lpips=Metric(),
        fid=Metric(),
    )
    assert list(numbers) == ["FID", "LPIPS", "SSIM", "ID", "N"]
    assert numbers["ID"] == pytest.approx(0.6) and numbers["FID"] == numbers["LPIPS"] == 0.25
    assert torch.equal(seen[True][0][0], dataset.images[[1]])  # the truth of what was drawn
    assert seen[False][0][0].dtype == torch.uint8 and seen[None][0][1].max() <= 1


def test_a_parser_folder_of_the_published_format(tmp_path):
    parser = face_parser(save_parser(tmp_path / "parser"))
    images = to_float(torch.randint(0, 256, (1, 3, 96, 96), generator=torch.Generator()))
    ids = parse(parser, images, 64)
    assert ids.shape == (1, 64, 64) and ids.min() >= 0 and ids.max() < 19
    x = torch.nn.functional.interpolate(
        images, (512, 512), mode="bilinear", antialias=True, align_corners=False
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((x + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        logits = parser(x).logits
    wanted = torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear").argmax(1)
    assert torch.equal(ids, wanted)


def test_parsers_of_other_classes_are_refused(tmp_path):
    swapped = list(CLASSES)
    swapped[4], swapped[5] = swapped[5], swapped[4]
    with pytest.raises(ValueError, match=r"'r_eye', 'l_eye'.*expected \['background', 'skin'"):
        face_parser(save_parser(tmp_path / "swapped", swapped))
    with pytest.raises(FileNotFoundError, match=r"no config\.json.*hf download"):
        face_parser(tmp_path)


@pytest.mark.parametrize(
    ("load", "column", "name"),
    [
        (arcface, "ID", "onnxruntime"),
        (lambda file: lpips_vgg(), "LPIPS", "torchvision"),
        (inception_fid, "FID", "torch-fidelity"),
    ],
)
def test_absent_libraries_are_named(load, column, name, tmp_path, monkeypatch):
    monkeypatch.setitem(photo_judges.importlib.sys.modules, name.replace("-", "_"), None)
    with pytest.raises(ModuleNotFoundError, match=f"column {column} needs.*pip install {name} "):
        load(tmp_path / "weights")


@pytest.mark.parametrize("load", [arcface, lambda file: lpips_vgg(), inception_fid])
def test_absent_weights_are_named(load, tmp_path, monkeypatch):
    monkeypatch.setattr(photo_judges, "_library", lambda name, column: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"is missing; expected .* Fetch it"):
        load(tmp_path / "weights")


def test_arcface_reads_the_crop_of_both(tmp_path, monkeypatch):
    fed = []

    class Session:
        def __init__(self, path, providers):
            assert path.endswith("face.onnx") and providers == ["CPU"]

        def get_inputs(self):
            return [type("Input", (), {"name": "input.1"})()]

        def run(self, outputs, feeds):
            fed.append(feeds["input.1"])
            return [np.array([[3.0, 4.0]], np.float32)]

    runtime = type("Runtime", (), {"InferenceSession": Session})
    runtime.get_available_providers = staticmethod(lambda: ["CPU"])
    monkeypatch.setattr(photo_judges, "_library", lambda name, column: runtime)
    (tmp_path / "face.onnx").write_bytes(b"")
    image = torch.full((1, 3, 256, 256), -1.0)
    image[..., 35:223, 32:220] = 1.0  # what ArcFace is to see
    code = arcface(tmp_path / "face.onnx")(image)
    assert code.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]
    assert fed[0].shape == (1, 3, 112, 112) and fed[0].min() > 0.999


def test_command_writes_the_columns(faces, tmp_path, capsys):
    dataset, pictures = faces
    parser = save_parser(tmp_path / "parser")
    options = f"--pictures {pictures} --data {dataset.root} --parser {parser} --device cpu"
    tyro.cli(photo_judges.main, args=options.split())
    written = json.loads((pictures / "columns.json").read_text())["columns"]
    assert list(written) == ["SSIM", "ACC", "mIoU", "N"] and written["N"] == 1
    assert "| SSIM | ACC | mIoU | N |" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r"no picture named by a sample id.*000000\.png"):
        tyro.cli(photo_judges.main, args=["--pictures", str(tmp_path), *options.split()[2:]])
