"""`pack` writes shards that hold the manifest they were made of."""

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from densecl import paths
from densecl.artifacts import DatasetPlan, write_json
from densecl.config.params import DatasetParams
from densecl.datasets.manifests.layouts.sources import list_source, list_train_classes
from densecl.datasets.manifests.scan import scan_listing
from densecl.datasets.pack import pack_images
from densecl.errors import DataError, DenseclError
from steps import pack, prepare
from tests.conftest import WNIDS, draw_set

TRAIN = DatasetParams(root="train", tracked_by="train")


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    monkeypatch.chdir(tmp_path)
    root = draw_set(Path("train"), 4)
    shutil.move(root / WNIDS[0] / "image_0_0.JPEG", root / WNIDS[0] / "ö 狗.jpg_large")
    (root / WNIDS[1] / "bad.png").write_bytes(b"no image")
    plan = DatasetPlan(
        name="imagenet-train",
        dataset=TRAIN,
        train=TRAIN,
        preprocess=None,
        protocol="folder",
        classes=(),
        optional=False,
    )
    write_json(paths.plan_file("imagenet-train"), plan)
    prepare.main("imagenet-train")
    return pd.read_parquet(paths.manifest_file("imagenet-train"))


def facts(frame: pd.DataFrame) -> pd.DataFrame:
    rest = frame.drop(columns=["image_id", "path"])
    return rest.sort_values("sha256").reset_index(drop=True)


def test_shards_hold_the_manifest_that_they_were_made_of(manifest: pd.DataFrame) -> None:
    pack.main("imagenet-train", "shards")
    settings = DatasetParams(root="shards", tracked_by="shards", layout="webdataset")
    assert list_train_classes(settings) == sorted(WNIDS)
    listing = list_source(settings, WNIDS)
    packed = scan_listing("s", Path("shards"), listing, WNIDS, 1).frame
    pd.testing.assert_frame_equal(facts(packed), facts(manifest))
    (shard,) = json.loads(Path("shards/index.json").read_text())["shards"]
    content = Path("shards", shard["name"]).read_bytes()
    assert (shard["images"], shard["bytes"]) == (13, len(content))
    assert shard["sha256"] == hashlib.sha256(content).hexdigest()
    with pytest.raises(DenseclError, match="shards: exists"):
        pack.main("imagenet-train", "shards")


def test_shards_are_of_bounded_size_and_equal_bytes(manifest: pd.DataFrame) -> None:
    limit, found = 2000, []
    for name in ("first", "second"):
        Path(name).mkdir()
        found.append(pack_images("s", manifest, WNIDS, Path("train"), Path(name), limit))
    assert found[0] == found[1]
    assert len(found[0]) > 3
    assert sum(shard.images for shard in found[0]) == len(manifest)
    sizes, start = manifest["bytes"].tolist(), 0
    for shard in found[0]:
        part = sizes[start : start + shard.images]
        assert sum(part) <= limit or len(part) == 1
        start += shard.images


def test_a_changed_image_is_refused_and_leaves_nothing(manifest: pd.DataFrame) -> None:
    Path("train", manifest["path"].iloc[3]).write_bytes(b"another")
    with pytest.raises(DataError, match="another content than its manifest says"):
        pack.main("imagenet-train", "shards")
    assert not list(Path().glob("shards*"))
