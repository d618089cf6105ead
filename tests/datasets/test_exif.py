"""`data.exif` decides in one place whether images are turned upright: in the manifest, in training,
in evaluation and in serving.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from safetensors.torch import save_file

from densecl import paths
from densecl.artifacts import DatasetPlan, SkippedFiles, read_json, write_json
from densecl.config.params import DataParams, DatasetParams, NetworkParams
from densecl.datasets.views.two_views import TwoViewDataset
from densecl.network.exported import load_exported_model
from densecl.network.preprocessing import build_image_loader, resolve_preprocessing
from densecl.network.vit import build_model
from steps import prepare
from tests.conftest import WNIDS, draw_set

NETWORK = NetworkParams(
    model_name="vit_tiny_patch16_224",
    model_args={"img_size": 32, "depth": 1, "embed_dim": 24, "num_heads": 2},
)


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images, of which one lies on its side."""
    monkeypatch.chdir(tmp_path)
    root, exif = draw_set(Path("photographs"), 2), Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / WNIDS[0] / "image_0_0.JPEG", exif=exif)
    return root


def list_with(root: Path, exif: str) -> SkippedFiles:
    dataset = DatasetParams(root=str(root), tracked_by=str(root))
    plan = DatasetPlan(
        name="own",
        dataset=dataset,
        train=dataset,
        preprocess=None,
        protocol="folder",
        classes=(),
        optional=False,
        exif=exif,
    )
    write_json(paths.plan_file("own"), plan)
    prepare.main("own")
    return read_json(SkippedFiles, paths.skipped_file("own"))


def test_prepare_proposes_apply_and_says_what_it_did(photographs: Path) -> None:
    (note,) = list_with(photographs, "ignore").notes
    assert note == (
        "warning: 1 images lie on a side or upside down: their EXIF orientation is ignored "
        "(data.exif: apply turns them upright)"
    )
    first = pd.read_parquet(paths.manifest_file("own")).iloc[0]
    assert (first["width"], first["height"]) == (48, 32)
    (note,) = list_with(photographs, "apply").notes
    assert note == "1 images turned upright by their EXIF orientation"
    first = pd.read_parquet(paths.manifest_file("own")).iloc[0]
    assert (first["width"], first["height"]) == (32, 48)


@pytest.mark.parametrize("exif", ["ignore", "apply"])
def test_training_and_evaluation_see_the_same_pixels(photographs: Path, exif: str) -> None:
    list_with(photographs, exif)
    frame = pd.read_parquet(paths.manifest_file("own"))
    path = photographs / frame["path"].iloc[0]
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image) if exif == "apply" else image.copy()
    for settings in (DataParams(exif=exif), DataParams(exif=exif, cache="ram")):
        views = TwoViewDataset(frame, photographs, settings, (32, 32), 0)
        pixels, _, extent = views.decode_crops(0, np.random.default_rng(0))
        assert extent == upright.size[::-1]
        assert np.array_equal(pixels, upright)
    model = build_model(NETWORK, 3, 0)
    folder = Path("model")
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": NETWORK.model_name, "model_args": NETWORK.model_args}
    config |= {"num_classes": 3, **({"exif": exif} if exif == "apply" else {})}
    (folder / "config.json").write_text(json.dumps(config))
    loaded, _ = load_exported_model(folder)
    preprocessing = resolve_preprocessing(loaded)
    assert preprocessing.exif == exif
    assert ("exif" in preprocessing.model_dump()) == (exif == "apply")
    upright.save("upright.png")
    (batch, _), *_ = build_image_loader([path], preprocessing, 1)
    (expected, _), *_ = build_image_loader([Path("upright.png")], preprocessing, 1)
    assert np.array_equal(batch, expected)
