"""Memory and time of manifests of millions of rows: `python -m benchmarks.memory [ROWS ...]`.

Manifests are generated: no image exists, only their class folders. Each figure comes from a process
of its own. Unique memory is what the process would give back if it ended (/proc/PID/smaps_rollup,
private pages).
"""

import argparse
import ctypes
import gc
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from densecl import distributed, paths
from densecl.analysis.results import OUTCOME_COLUMNS, read_predictions, share_names
from densecl.config.params import DataParams
from densecl.datasets.storage import folder_times
from densecl.datasets.storage.archives import locate_index
from densecl.datasets.storage.image_names import FolderedNames
from densecl.datasets.storage.manifest import SCHEMA, read_manifest, select_usable
from densecl.datasets.storage.shard_cache import create_mirror, find_staged
from densecl.datasets.storage.shard_index import IndexedFile, ShardIndex
from densecl.datasets.storage.usable_images import CHECKED_COLUMNS, TRAINING_COLUMNS
from densecl.datasets.views.two_views import TwoViewDataset, create_epoch_loader
from densecl.training.train import hash_rows

SIZES = {1_281_167: 1000, 14_197_122: 21_841}  # images and classes of ImageNet-1k and -21k
BATCH, TOUCHED = 1024, 20_000  # images per step; images that a worker has read
PART = 2**20  # rows that are generated at a time
MAX_LISTS = 2_000_000  # rows; 14 M as Python lists take gigabytes
CELLS, CELL_IMAGES, CELL = 40, 50_000, Path("cell.parquet")
PATH, FEW_ROWS, ROOT = Path("manifest.parquet"), Path("few.parquet"), Path("set")
SHARD_MANIFEST, SHARD_ROOT, SHARD_ROWS = Path("shards.parquet"), Path("shards"), 1251


class MemoryTask(NamedTuple):
    """What is measured, and what a worker then reads of its result."""

    name: str
    run: Callable[[], object]
    touch: Callable[[Any], object] | None = None


def write_generated_manifest(rows: int, classes: int, path: Path) -> None:
    """A manifest like that of ImageNet: rows of equal classes, sorted by path."""
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, rows, PART):
            numbers = np.arange(start, min(start + PART, rows))
            writer.write_table(build_rows(numbers, numbers * classes // rows, rng))


def write_shards(rows: int) -> None:
    """The same images as in `path` of shards, in SHARD_MANIFEST, and the index of each shard as if
    its headers had been read.
    """
    files = tuple(
        IndexedFile(name=f"train-{shard:08d}.tar", bytes=150_000_000, sha256=f"{shard:064x}")
        for shard in range(-(-rows // SHARD_ROWS))
    )
    mirror = create_mirror("s3://bucket/train", Path("index.json"), ShardIndex(shards=files))
    SHARD_ROOT.symlink_to(mirror)
    paths.ARCHIVES.mkdir(parents=True)
    for start, file in zip(range(0, rows, SHARD_ROWS), files, strict=True):
        write_shard_index(mirror / file.name, np.arange(start, min(start + SHARD_ROWS, rows)))
    done = 0
    with pq.ParquetWriter(SHARD_MANIFEST, SCHEMA, compression="zstd") as writer:
        for batch in pq.ParquetFile(PATH).iter_batches(PART):
            numbers = np.arange(done, done + len(batch))
            shards, keys = format_numbers("", numbers // SHARD_ROWS), format_numbers("", numbers)
            places = pc.binary_join_element_wise("train-", shards, ".tar/", keys, ".jpg", "")
            column = SCHEMA.get_field_index("path")
            table = pa.Table.from_batches([batch]).set_column(column, SCHEMA.field(column), places)
            writer.write_table(table)
            done += len(batch)


def write_shard_index(shard: Path, numbers: NDArray[np.int64]) -> None:
    """The index of a shard of images [R], each with its .cls and .json."""
    names = [f"{n:08d}.{kind}".encode() for n in numbers for kind in ("cls", "jpg", "json")]
    table = np.zeros((len(names), 5), np.int64)
    table[:, 0] = 512 * np.arange(len(names))
    table[:, 1] = table[:, 2] = 100
    table[:, 3] = -1
    identity = find_staged(shard)
    assert identity
    np.savez(
        locate_index(identity),
        names=np.array(names, "S"),
        member_table=table,
        replaced=np.array(0),
        tar_name=np.array(""),
        top_folder=np.array(b""),
    )


def build_rows(
    numbers: NDArray[np.int64], labels: NDArray[np.int64], rng: np.random.Generator
) -> pa.Table:
    """Rows of the images `numbers` [R] of the classes `labels` [R]."""
    digests = rng.bytes(32 * len(numbers)).hex()
    wnids, names = (format_numbers("n", values) for values in (labels, numbers))
    paths = pc.binary_join_element_wise(wnids, pc.binary_join_element_wise(wnids, names, "_"), "/")
    paths = pc.binary_join_element_wise(paths, ".JPEG", "")
    columns = {
        "image_id": pc.binary_join_element_wise("imagenet-train", paths, "/"),
        "path": paths,
        "label": labels,
        "wnid": wnids,
        "width": np.full(len(numbers), 500),
        "height": np.full(len(numbers), 375),
        "bytes": rng.integers(50_000, 200_000, len(numbers)),
        "sha256": [digests[64 * n : 64 * n + 64] for n in range(len(numbers))],
        "problem": [""] * len(numbers),
        "dhash": [digests[64 * n : 64 * n + 16] for n in range(len(numbers))],
        "brightness": np.full(len(numbers), 0.5),
        "contrast": np.full(len(numbers), 0.2),
    }
    return pa.table([pa.array(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA)


def format_numbers(letter: str, numbers: NDArray[np.int64]) -> pa.Array:
    """A letter and eight digits each."""
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 8, "0")
    return pc.binary_join_element_wise(letter, digits, "")


def load_rows(path: Path = PATH) -> pd.DataFrame:
    """The columns that a training reads, of the usable rows."""
    frame = select_usable(read_manifest(path, {*CHECKED_COLUMNS, *TRAINING_COLUMNS}))
    return frame[list(TRAINING_COLUMNS)]


def build_views() -> TwoViewDataset:
    """The dataset of a rank."""
    return TwoViewDataset(load_rows(), ROOT, DataParams(), (224, 224), 0)


def build_shard_views() -> TwoViewDataset:
    """The same, of shards."""
    return TwoViewDataset(load_rows(SHARD_MANIFEST), find_mirror(), DataParams(), (224, 224), 0)


def find_mirror() -> Path:
    """The folder of links, by its own path."""
    return Path("cache/shards/roots") / SHARD_ROOT.readlink().name


def hash_manifest() -> object:
    """The fingerprint's part of the rows."""
    return hash_rows(load_rows())


def draw_shard_order() -> object:
    """As `draw_order`, of shards."""
    return draw_order(build_shard_views)


def draw_order(build: Callable[[], TwoViewDataset] = build_views) -> object:
    """The rows of the first rank of eight, from the middle of an epoch on: as a resumed run."""
    views = build()
    steps = len(views) // BATCH
    with patch.object(distributed, "get_world_size", lambda: 8):
        loader: Any = create_epoch_loader(views, 0, BATCH, steps, 0, steps // 2)
    return views, loader, next(iter(loader.sampler))


def check_folders_again() -> object:
    """Twice, with the first check's stat per image left out: the second is that of each start."""
    frame = read_manifest(PATH, CHECKED_COLUMNS)
    with patch.object(folder_times, "check_unchanged") as compare:
        folder_times.check_folders(frame, ROOT, PATH)
        folder_times.check_folders(frame, ROOT, PATH)
    assert compare.call_count == 1
    return frame


def touch_rows(views: TwoViewDataset) -> object:
    """What a worker reads of a row, but for the image itself."""
    rows = np.random.default_rng(0).integers(0, len(views), TOUCHED)
    for row in rows.tolist():
        views.files[row], views.image_ids[row], views.labels[row]
    return None


def build_lists() -> object:
    """The same rows as Python objects, for comparison."""
    frame = load_rows()
    columns = [frame[name].tolist() for name in ("path", "label", "image_id")]
    return columns, [(0, row) for row in np.random.default_rng(0).permutation(len(frame)).tolist()]


def touch_lists(lists: tuple[list[list[object]], list[object]]) -> object:
    rows = np.random.default_rng(0).integers(0, len(lists[0][0]), TOUCHED)
    return [[column[row] for column in lists[0]] for row in rows.tolist()][-1]


def read_memory(name: str) -> float:
    """MiB of this process: private pages (Private), or the largest resident set (VmHWM)."""
    file = "smaps_rollup" if name == "Private" else "status"
    lines = Path(f"/proc/self/{file}").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def measure_task(task: MemoryTask) -> str:
    """The row of a task, measured in this process; a first read loads what reading imports."""
    FolderedNames(load_rows(FEW_ROWS)["image_id"])
    pa.default_memory_pool().release_unused()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # of VmHWM
    before, peak, start = read_memory("Private"), read_memory("VmHWM"), time.perf_counter()
    result = task.run()
    seconds = time.perf_counter() - start
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)  # what glibc keeps for later is not held by the rows
    unique, peak = read_memory("Private") - before, read_memory("VmHWM") - peak
    worker = measure_worker(partial(task.touch, result)) if task.touch else None
    touched = "-" if worker is None else f"{worker:.0f} MiB"
    return f"| {task.name} | {seconds:.1f} s | {unique:.0f} MiB | {peak:.0f} MiB | {touched} |"


def measure_worker(touch: Callable[[], object]) -> float:
    """MiB that a forked process has for itself after TOUCHED rows, above one that touched none."""
    gc.collect()
    sizes = []
    for call in (lambda: None, touch):
        reader, writer = os.pipe()
        if not (child := os.fork()):
            call()
            os.write(writer, str(read_memory("Private")).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            sizes.append(float(pipe.read()))
        os.waitpid(child, 0)
    return sizes[1] - sizes[0]


def write_predictions() -> None:
    """Rows of a model that is right on all images of a set of ImageNet's size."""
    labels = np.arange(CELL_IMAGES) % 1000
    wnids, names = (format_numbers("n", numbers) for numbers in (labels, np.arange(CELL_IMAGES)))
    ids = pc.binary_join_element_wise(
        "imagenet", wnids, pc.binary_join_element_wise(names, ".JPEG", ""), "/"
    )
    columns = {"image_id": ids, "source": ids, "label": labels, "prediction": labels}
    columns |= dict.fromkeys(("confidence", "p_true"), np.full(CELL_IMAGES, 0.5, np.float32))
    columns |= dict.fromkeys(OUTCOME_COLUMNS.values(), np.full(CELL_IMAGES, True))
    pq.write_table(pa.table(columns), CELL)


def read_cells() -> list[pd.DataFrame]:
    """As `read_seed_results` does: the ids of all seeds are held once."""
    cells = []
    for _ in range(CELLS):
        cells.append(read_predictions(CELL, "imagenet", 1.0))
        share_names(cells[-1], cells[0])
    return cells


def read_cells_apart() -> list[pd.DataFrame]:
    """Each with ids of its own, for comparison."""
    return [read_predictions(CELL, "imagenet", 1.0) for _ in range(CELLS)]


CELL_TASKS = (
    MemoryTask(f"predictions of {CELLS} cells of {CELL_IMAGES:,} images", read_cells),
    MemoryTask("the same, each with ids of its own, for comparison", read_cells_apart),
)
TASKS = (
    MemoryTask("read the columns of a training", load_rows),
    MemoryTask("fingerprint of the rows", hash_manifest),
    MemoryTask("rows of a rank, as the loader holds them", build_views, touch_rows),
    MemoryTask("and its order from the middle of an epoch on, rank 0 of 8", draw_order),
    MemoryTask("rows of a rank, of shards", build_shard_views, touch_rows),
    MemoryTask("and their order from the middle of an epoch on, rank 0 of 8", draw_shard_order),
    MemoryTask("check of unchanged folders", check_folders_again),
)
LISTS = MemoryTask("rows and order as Python lists, for comparison", build_lists, touch_lists)


def measure_size(rows: int, classes: int) -> Iterator[str]:
    """The rows of one size; the manifest is generated in the working folder."""
    write_generated_manifest(rows, classes, PATH)
    write_shards(rows)
    for label in range(classes):
        (ROOT / f"n{label:08d}").mkdir(parents=True)
    time.sleep(folder_times.SETTLED)
    return measure_tasks((*TASKS, *([LISTS] if rows <= MAX_LISTS else [])))


def measure_tasks(tasks: Sequence[MemoryTask]) -> Iterator[str]:
    """The row of each task, from a process of its own."""
    write_generated_manifest(10, 1, FEW_ROWS)
    for task in tasks:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            yield pool.apply(measure_task, (task,))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", type=int, default=list(SIZES))
    sizes = parser.parse_args().rows
    if min(sizes) <= folder_times.MAX_STATS:  # checked file by file, and no file exists
        parser.error(f"rows: found {min(sizes)}, expected more than {folder_times.MAX_STATS}")
    print("| task | seconds | unique memory | peak | of a worker |\n|---|---|---|---|---|")
    for rows in sizes:
        print(f"| **{rows:,} rows** | | | | |")
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            for line in measure_size(rows, SIZES.get(rows, max(1, rows // 1000))):
                print(line, flush=True)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        write_predictions()
        for line in measure_tasks(CELL_TASKS):
            print(line, flush=True)


if __name__ == "__main__":
    main()
