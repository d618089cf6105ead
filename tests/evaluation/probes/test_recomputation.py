"""Occlusion and viewpoint from files, by the stage, against a script of timm, torchvision and
hashlib that knows docs/probes/ only: image by image.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import CenterCrop, InterpolationMode, PILToTensor, Resize
from torchvision.transforms.v2.functional import perspective, rotate

from densecl import paths
from densecl.artifacts import ProbeEvaluation, read_json
from densecl.evaluation.probing import context
from steps import evaluate
from tests.conftest import draw_set
from tests.evaluation.evaluated_project import run_stages

pytestmark = pytest.mark.slow  # 20 s: by the stages, from plan to report

BILINEAR = InterpolationMode.BILINEAR
SIZE, RESIZED = 32, 35  # floor(32 / 0.9)
MEAN = STD = 0.5
PROBES = {"occlusion": {"masks": "objects"}, "viewpoint": {}}


def draw_masks(images: Path, masks: Path, rng: np.random.Generator) -> None:
    """A rectangle in each image but the last of each class."""
    for folder in images.iterdir():
        for path in sorted(folder.iterdir())[:-1]:
            mask = np.zeros((48, 48), np.uint8)
            y, x, height, width = rng.integers(8, 24, 4)
            mask[y : y + height, x : x + width] = 255
            target = (masks / path.relative_to(images)).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(target)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        patch.setenv("DENSECL_WORKERS", "0")
        draw_set(Path("train"), 2)
        draw_set(Path("val"), 4, size=48, seed=1)
        draw_masks(Path("val"), Path("masks"), np.random.default_rng(0))
        entry = {"root": "val", "tracked_by": "val", "masks": "masks", "mask_values": "object"}
        run_stages(
            {"imagenet-train": "train", "imagenet": "val"},
            {"probes": PROBES},
            {"objects": entry},
        )
        return Path.cwd()


@pytest.fixture
def judge(project):
    """Whether a changed image uint8 [3, 32, 32] or normalised one is classified correctly."""
    folder = project / paths.model_folder("none", 0)
    config = json.loads((folder / "config.json").read_text())
    model = timm.create_model(
        config["architecture"], num_classes=config["num_classes"], **config["model_args"]
    )
    model.load_state_dict(load_file(folder / "model.safetensors"))
    model.eval()

    def is_correct(image: torch.Tensor, image_id: str) -> bool:
        if image.dtype == torch.uint8:
            image = (image / 255 - MEAN) / STD
        with torch.inference_mode():
            predicted = config["classes"][model(image[None]).argmax()]
        return predicted == image_id.split("/")[1]

    return is_correct


def read_rows(project: Path, probe: str) -> pd.DataFrame:
    return pd.read_parquet(project / paths.probe_rows_file(probe, "none", 0)).set_index("image_id")


def load_image(project: Path, image_id: str) -> torch.Tensor:
    image = Image.open(project / "val" / image_id.split("/", 1)[1]).convert("RGB")
    resized = Resize(RESIZED, InterpolationMode.BICUBIC)(image)
    return PILToTensor()(CenterCrop(SIZE)(resized))


def create_numbers(count: int, *words: str) -> torch.Tensor:
    text = "\0".join(("0", *words)).encode()
    seed = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, dtype=torch.float64, generator=generator)


def drop(image: torch.Tensor, patches: list[int]) -> torch.Tensor:
    """Normalised, 0 in some of the 4 x 4 patches of 8 px."""
    result = (image / 255 - MEAN) / STD
    for patch in patches:
        y, x = 8 * (patch // 4), 8 * (patch % 4)
        result[:, y : y + 8, x : x + 8] = 0
    return result


def test_random_patches(project, judge):
    rows = read_rows(project, "occlusion")
    for image_id, row in rows.iterrows():
        numbers = create_numbers(16, "occlusion", "patches", image_id)
        order = numbers.argsort().tolist()
        for share in (0.25, 0.5, 0.75):
            image = drop(load_image(project, image_id), order[: int(share * 16)])
            assert row[f"random/{share}"] == judge(image, image_id)
    assert 0 < rows["random/0.5"].mean() < 1


def test_salient_patches_by_masks(project, judge):
    rows = read_rows(project, "occlusion")
    assert rows["salient/0.5"].isna().sum() == len(list((project / "val").iterdir()))
    for image_id, row in rows[rows["salient/0.5"].notna()].iterrows():
        path = project / "masks" / image_id.split("/", 1)[1]
        mask = Image.open(path.with_suffix(".png"))
        mask = CenterCrop(SIZE)(Resize(RESIZED, InterpolationMode.NEAREST)(mask))
        shares = (np.array(mask) >= 128).reshape(4, 8, 4, 8).mean((1, 3)).flatten()
        numbers = create_numbers(16, "occlusion", "patches", image_id).tolist()
        for curve, sign in (("salient", -1), ("non-salient", 1)):
            order = sorted(range(16), key=lambda p: (sign * shares[p], numbers[p]))
            image = drop(load_image(project, image_id), order[:8])
            assert row[f"{curve}/0.5"] == judge(image, image_id)


def test_rotation(project, judge):
    rows = read_rows(project, "viewpoint")
    for image_id, row in rows.iterrows():
        number = create_numbers(8, "viewpoint", "rotation", image_id)[0]
        for degrees in (15, 30, 60, 90):
            angle = degrees if number < 0.5 else -degrees
            image = rotate(load_image(project, image_id), angle, BILINEAR, fill=[127.5] * 3)
            assert row[f"rotation/{degrees}"] == judge(image, image_id)
    assert 0 < rows["rotation/30"].mean() < 1


def test_perspective(project, judge):
    corners = [[0, 0], [31, 0], [31, 31], [0, 31]]
    inwards = [[1, 1], [-1, 1], [-1, -1], [1, -1]]
    for image_id, row in read_rows(project, "viewpoint").iterrows():
        numbers = create_numbers(8, "viewpoint", "perspective", image_id)
        steps = (numbers.view(4, 2) * (int(0.4 * 16) + 1)).int()
        moved = (torch.tensor(corners) + torch.tensor(inwards) * steps).tolist()
        image = perspective(
            load_image(project, image_id), corners, moved, BILINEAR, fill=[127.5] * 3
        )
        assert row["perspective/0.4"] == judge(image, image_id)


def test_numbers_are_the_means_and_area_is_over_the_plain_accuracy(project):
    plain = pd.read_parquet(project / paths.predictions_file("imagenet", "none", 0))["correct"]
    for probe in PROBES:
        rows = read_rows(project, probe)
        result = read_json(ProbeEvaluation, project / paths.probe_file(probe, "none", 0))
        for name, measure in result.measures.items():
            assert measure.value == pytest.approx(rows[name].mean())
        assert set(result.measures) == set(rows) - {"source"}
    curve = [plain.mean(), *(rows[f"rotation/{degrees}"].mean() for degrees in (15, 30, 60, 90))]
    area = np.trapezoid(curve, [0, 15, 30, 60, 90]) / 90
    assert rows["rotation/area"].mean() == pytest.approx(area)


def test_images_that_are_not_kept_give_the_same(project, monkeypatch):
    """Decoded again by each condition, donors too."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("DENSECL_WORKERS", "0")
    before = read_rows(project, "occlusion")
    monkeypatch.setattr(context, "MAX_KEPT_BYTES", 0)
    execution = project / paths.plan_file("execution")
    values = json.loads(execution.read_text())
    execution.write_text(json.dumps(values | {"cell_cache": None}))
    evaluate.main("none", 0)
    pd.testing.assert_frame_equal(read_rows(project, "occlusion"), before)
