"""A training on copies of a dataset, of real images where the suite is given: tars on S3, timm's
tars, Parquet of Hugging Face, Kaggle's folders. All give what the folders give, bit for bit.
"""

import csv
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from densecl import paths
from densecl.artifacts import DatasetPlan, TrainPlan, ValidationResult, write_json
from densecl.config.params import (
    DataParams,
    DatasetParams,
    DenseContrastParams,
    NetworkParams,
    TrainParams,
)
from densecl.datasets.pack import pack_images
from densecl.datasets.storage import cache_room
from densecl.datasets.storage.manifest import read_manifest
from densecl.datasets.storage.remote_root import update_index
from densecl.datasets.storage.usable_images import load_usable_images
from densecl.errors import DataError, RetryLater
from densecl.evaluation.predict import predict_images
from densecl.network.exported import load_exported_model
from densecl.network.preprocessing import resolve_preprocessing
from densecl.training import trainer
from densecl.training.train import train
from steps import prepare
from tests.conftest import draw_set
from tests.s3_server import serve_s3

pytestmark = pytest.mark.slow

SUITE = os.environ.get("DENSECL_SUITE")
CLASSES = ["n02084071", "n02121620", "n02131653"]  # three of the suite
TRAIN, VAL = 12, 4  # images per class
PLAN = TrainPlan(
    mode="dense",
    network=NetworkParams(
        model_name="vit_tiny_patch16_224",
        model_args={"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    ),
    data=DataParams(),
    train=TrainParams(batch_size=12, epochs=1, warmup_epochs=0.0),
    contrast=DenseContrastParams(queue_size=72, patches_per_image=4, dense_dim=16),
)


class Result(NamedTuple):
    manifests: dict[str, pd.DataFrame]
    model: dict[str, bytes]
    predictions: pd.DataFrame


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and val/ with class folders."""
    place = tmp_path_factory.mktemp("folders")
    for name, count, seed in (("train", TRAIN, 0), ("val", VAL, 1)):
        if not SUITE:
            draw_set(place / name, count, seed=seed, folders=tuple(CLASSES))
            continue
        for wnid in CLASSES:
            (place / name / wnid).mkdir(parents=True)
            for path in sorted(Path(SUITE, "imagenet", name, wnid).iterdir())[:count]:
                shutil.copy(path, place / name / wnid)
    return place


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Address of an S3 server."""
    with serve_s3("bucket") as address:
        yield address


def run(place: Path, train_set: DatasetParams, val_set: DatasetParams, plan: TrainPlan) -> Result:
    """Prepare both datasets in a project of their own, train one epoch and predict."""
    place.mkdir()
    manifests = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("DENSECL_WORKERS", "0")
        patch.setattr(trainer, "count_workers", lambda: 0)
        patch.setattr("densecl.monitoring.monitor.Monitor._call_mlflow", lambda self, call: None)
        for name, settings in (("imagenet-train", train_set), ("imagenet", val_set)):
            if "://" in settings.root:
                update_index(settings)
            planned = DatasetPlan(
                name=name,
                dataset=settings,
                train=train_set,
                preprocess=None,
                protocol="folder",
                classes=(),
                optional=False,
            )
            write_json(paths.plan_file(name), planned)
            prepare.main(name)
            manifests[name] = read_manifest(paths.manifest_file(name))
            verdict = ValidationResult(dataset=name, passed=True)
            write_json(paths.validation_file(name), verdict)
        fetch = plan.data.order == "images"
        images = load_usable_images("imagenet-train", fetch=fetch)
        train(plan, 0, images, CLASSES, lambda _: {}, Path("model"), Path("history"))
        model, _ = load_exported_model(Path("model"))
        val = load_usable_images("imagenet")
        preprocessing = resolve_preprocessing(model)
        rows = predict_images(model, val.frame, val.root, preprocessing, [0, 1, 2], 4)
        content = {path.name: path.read_bytes() for path in Path("model").iterdir()}
    return Result(manifests, content, rows)


def describe(root: Path, **settings: str) -> DatasetParams:
    return DatasetParams.model_validate({"root": str(root), "tracked_by": str(root)} | settings)


@pytest.fixture(scope="module")
def expected(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    sets = describe(folders / "train"), describe(folders / "val")
    return run(tmp_path_factory.mktemp("expected") / "run", *sets, PLAN)


def list_images(root: Path) -> list[tuple[int, Path]]:
    """Label and file of each image, in an order that is not theirs."""
    files = sorted(root.glob("*/*"))
    order = np.random.default_rng(0).permutation(len(files))
    return [(CLASSES.index(files[k].parent.name), files[k]) for k in order]


def copy_for_timm(root: Path, target: Path) -> DatasetParams:
    target.mkdir()
    images, lengths, names = list_images(root), [], []
    for number, start in enumerate(range(0, len(images), 7)):
        names.append(f"set-{target.name}-{number:04d}.tar")
        lengths.append(len(images[start : start + 7]))
        with tarfile.open(target / names[-1], "w") as tar:
            for row, (label, path) in enumerate(images[start : start + 7], start):
                about = json.dumps({"label": label, "filename": path.name}).encode()
                parts = (("jpg", path.read_bytes()), ("cls", str(label).encode()), ("json", about))
                for suffix, content in parts:
                    member = tarfile.TarInfo(f"{row:06d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    split = {"filenames": names, "shard_lengths": lengths}
    info = {"class_names": CLASSES, "splits": {target.name: split}}
    (target / "_info.json").write_text(json.dumps(info))
    return describe(target, layout="webdataset")


def copy_for_hugging_face(root: Path, target: Path) -> DatasetParams:
    target.mkdir()
    images = list_images(root)
    features = {"image": {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}}
    for number, part in enumerate((images[::2], images[1::2])):
        table = pa.table(
            {
                "image": [{"bytes": path.read_bytes(), "path": path.name} for _, path in part],
                "label": [label for label, _ in part],
            }
        )
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        name = f"{target.name}-{number:05d}-of-00002.parquet"
        pq.write_table(table.replace_schema_metadata(about), target / name, row_group_size=5)
    return describe(target, layout="parquet")


def copy_for_kaggle(root: Path, target: Path) -> DatasetParams:
    """The train set in folders, val flat with its solution."""
    top = target.parent / "ILSVRC/Data/CLS-LOC"
    if root.name == "train":
        shutil.copytree(root, top / "train")
        return describe(top / "train", layout="kaggle")
    (top / "val").mkdir(parents=True)
    with (target.parent / "LOC_val_solution.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "PredictionString"])
        for label, path in list_images(root):
            shutil.copy(path, top / "val")
            rows.writerow([path.stem, f"{CLASSES[label]} 1 2 3 4 "])
    return describe(top / "val", layout="kaggle")


def upload_shards(frame: pd.DataFrame, root: Path, target: Path) -> DatasetParams:
    """Pack the images into small tars on S3."""
    target.mkdir()
    pack_images(root.name, frame, CLASSES, root, target, 12_000)
    fsspec.filesystem("s3").put(f"{target}/", f"bucket/{target.name}/", recursive=True)
    return DatasetParams(
        root=f"s3://bucket/{target.name}",
        tracked_by=f"index/{target.name}.json",
        layout="webdataset",
    )


def check_equal(found: Result, expected: Result) -> None:
    for name, frame in expected.manifests.items():
        pd.testing.assert_frame_equal(
            found.manifests[name].drop(columns="path"), frame.drop(columns="path")
        )
    assert found.model == expected.model
    pd.testing.assert_frame_equal(found.predictions, expected.predictions)


@pytest.mark.parametrize("copy", [copy_for_timm, copy_for_hugging_face, copy_for_kaggle])
def test_copies_give_what_the_folders_give(
    copy: Callable[[Path, Path], DatasetParams], folders: Path, expected: Result, tmp_path: Path
) -> None:
    sets = [copy(folders / name, tmp_path / name) for name in ("train", "val")]
    check_equal(run(tmp_path / "run", *sets, PLAN), expected)


def test_shards_on_s3_give_what_the_folders_give(
    bucket: str, folders: Path, expected: Result, tmp_path: Path
) -> None:
    names = {"train": "imagenet-train", "val": "imagenet"}
    sets = [
        upload_shards(expected.manifests[name], folders / folder, tmp_path / folder)
        for folder, name in names.items()
    ]
    check_equal(run(tmp_path / "run", *sets, PLAN), expected)
    # A cache that holds two blocks of one shard each, and the index alone.
    data = DataParams(order="shards", block_shards=1)
    plan = PLAN.model_copy(update={"data": data})
    sizes, val_sizes = (
        [shard.stat().st_size for shard in (tmp_path / name).glob("*.tar")] for name in names
    )
    room = max(2 * max(sizes), sum(val_sizes)) + 2000  # and _info.json
    assert room < sum(sizes) / 2
    whole = run(tmp_path / "whole", *sets, plan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache_room.SIZE_ENV, str(room / 1e9))
        small = run(tmp_path / "small", *sets, plan)
    check_equal(small, whole)
    assert small.model["model.safetensors"] != expected.model["model.safetensors"]


def test_errors_of_a_store_are_one_line(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = DatasetParams(root="s3://nosuch/a", tracked_by="i.json", layout="webdataset")
    with pytest.raises(DataError, match=r"^s3://nosuch/a: found no nosuch/a; expected a folder"):
        update_index(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        fsspec.filesystem("s3").clear_instance_cache()
        with pytest.raises(
            RetryLater, match=r"^s3://nosuch/a: the store cannot be reached \("
        ) as e:
            update_index(settings)
        assert "\n" not in str(e.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(DataError, match=r"^s3://nosuch/a: no access \(.*\); expected credentials"):
        update_index(settings)
