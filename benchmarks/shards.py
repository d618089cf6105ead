"""Shards: the loader of two views from tars against folders, and fetching one from S3."""

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.measure import BenchmarkRow, Call, make_rate_row, measure_alternating
from benchmarks.photographs import PHOTOGRAPHS, list_photographs
from densecl.config.params import DataParams
from densecl.datasets.pack import pack_images
from densecl.datasets.storage.shard_cache import create_mirror, remove_shards, stage_shards
from densecl.datasets.storage.shard_index import IndexedFile, ShardIndex
from densecl.datasets.views.two_views import TwoViewDataset, create_epoch_loader
from densecl.runtime.hardware import reuse_freed_memory

IMAGES, BATCH, WORKERS, SHARDS = 256, 32, 2, 16
SHARD_BYTES = 150_000_000
BUCKET, NAME = "bucket", "train-00000.tar"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


def measure_shards(folder: Path) -> list[BenchmarkRow]:
    """S4 and S5."""
    with chdir(folder):
        return [measure_loader(folder), measure_fetching()]


def write_copies(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of IMAGES photographs as files in folders, and in SHARDS tars."""
    photographs, root = list_photographs(folder), folder / "folders"
    paths = list[str]()
    for number in range(IMAGES):
        path = root / f"n{number % 8:08d}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photographs[number % len(photographs)].read_bytes())
        paths.append(path.relative_to(root).as_posix())
    content = [(root / path).read_bytes() for path in paths]
    frame = pd.DataFrame({"path": paths, "label": 0, "wnid": "n00000000"})
    frame["image_id"] = "s/" + frame["path"]
    frame["bytes"] = [len(part) for part in content]
    frame["sha256"] = [hashlib.sha256(part).hexdigest() for part in content]
    frame = frame.sort_values("path", ignore_index=True)
    (folder / "shards").mkdir()
    size = int(frame["bytes"].sum()) // SHARDS + 1
    shards = pack_images("s", frame, ["n00000000"], root, folder / "shards", size)
    starts = np.cumsum([0, *(shard.images for shard in shards)])
    codes = np.searchsorted(starts, np.arange(IMAGES), side="right") - 1
    packed = [f"{shards[code].name}/{row:09d}.jpeg" for row, code in enumerate(codes)]
    return frame, frame.assign(path=packed)


def build_epoch(frame: pd.DataFrame, root: Path) -> Call:
    """Read an epoch, as a training with two loader processes does."""
    views = TwoViewDataset(frame, root, DataParams(), (224, 224), 0)
    return lambda: sum(1 for _ in create_epoch_loader(views, 0, BATCH, IMAGES // BATCH, WORKERS))


def measure_loader(folder: Path) -> BenchmarkRow:
    reuse_freed_memory()
    folders, shards = write_copies(folder)
    calls = {
        "shards": build_epoch(shards, folder / "shards"),
        "folders": build_epoch(folders, folder / "folders"),
    }
    measure = (
        f"two 224 px views of {IMAGES} {PHOTOGRAPHS}, {WORKERS} workers, from {SHARDS} shards on "
        "disk / from folders"
    )
    times = measure_alternating(calls, 7)
    return make_rate_row("S4", measure, times, "shards", "folders", "≥ 1.0", IMAGES, "images")


@contextmanager
def serve_bucket() -> Iterator[str]:
    """Address of an S3 server (moto) in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    address = f"http://127.0.0.1:{port}"
    settings = KEYS | {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": address}
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
        patch.dict(os.environ, settings),
    ):
        try:
            while True:
                with socket.socket() as probe:
                    if not probe.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.1)
            yield address
        finally:
            server.terminate()


def measure_fetching() -> BenchmarkRow:
    """A shard, checked and renamed, against the plain download of boto3."""
    import boto3

    content = np.random.default_rng(0).bytes(SHARD_BYTES)
    file = IndexedFile(name=NAME, bytes=SHARD_BYTES, sha256=hashlib.sha256(content).hexdigest())
    index = ShardIndex(base=f"{BUCKET}", shards=(file,))
    with serve_bucket():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key=NAME, Body=content)
        shard = create_mirror(f"s3://{BUCKET}", Path("index.json"), index) / NAME

        def fetch() -> None:
            remove_shards([shard])
            stage_shards([shard])

        calls = {
            "fetch": fetch,
            "boto3": lambda: client.download_file(BUCKET, NAME, "plain.tar"),
        }
        times = measure_alternating(calls, 5)
    measure = "fetching a shard of 150 MB from S3 (moto), checked / boto3's download_file"
    return make_rate_row("S5", measure, times, "fetch", "boto3", "≥ 0.9", SHARD_BYTES / 1e6, "MB")
