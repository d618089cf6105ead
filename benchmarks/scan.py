"""Throughput of listing and of hashing a dataset, against `find` and `sha256sum`."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.measure import BenchmarkRow, format_ratio, measure_alternating
from densecl.datasets.manifests.scan import hash_file, list_labelled_files, run_in_parallel

WORKERS = 2
LISTED = (100, 1000)  # classes, empty files a class: only their names are read
HASHED = (
    20,
    300,
    110_000,
)  # classes, files a class, bytes: the mean size of an ImageNet photograph


def write_tree(root: Path, classes: int, files: int, size: int) -> list[str]:
    """Class names; each class a folder of files of random bytes."""
    rng = np.random.default_rng(0)
    names = [f"n{number:08d}" for number in range(classes)]
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(files):
            (root / name / f"{name}_{number}.JPEG").write_bytes(rng.bytes(size))
    return names


def run_find(root: Path) -> None:
    """What `find` takes to print the same paths, sorted."""
    subprocess.run(
        ["sh", "-c", 'find "$1" -name "*.JPEG" | sort', "find", root],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def run_sha256sum(root: Path) -> None:
    """sha256sum of every file in two processes."""
    command = f'find "$1" -name "*.JPEG" -print0 | xargs -0 -n 64 -P {WORKERS} sha256sum'
    subprocess.run(["sh", "-c", command, "sha256sum", root], check=True, stdout=subprocess.DEVNULL)


def measure_rows(root: Path) -> list[BenchmarkRow]:
    listed_root, hashed_root = root / "names", root / "bytes"
    classes, hashed_classes = write_tree(listed_root, *LISTED, 0), write_tree(hashed_root, *HASHED)
    paths = [
        hashed_root / path for path, _ in list_labelled_files(hashed_root, "wnid", hashed_classes)
    ]
    calls = {
        "listing": lambda: list_labelled_files(listed_root, "wnid", classes),
        "find": lambda: run_find(listed_root),
        "hashing": lambda: list(run_in_parallel(hash_file, paths, WORKERS)),
        "sha256sum": lambda: run_sha256sum(hashed_root),
    }
    times = measure_alternating(calls, 5)
    files, megabytes = LISTED[0] * LISTED[1], len(paths) * HASHED[2] / 1e6
    rate = {name: f"{files / median(times[name]):,.0f} files/s" for name in ("listing", "find")}
    rate |= {
        name: f"{megabytes / median(times[name]):,.0f} MB/s" for name in ("hashing", "sha256sum")
    }
    slowest = files / max(times["listing"])
    return [
        BenchmarkRow(
            "S2",
            f"listing {files:,} files of {LISTED[0]} classes with their labels / `find` and `sort`",
            rate["listing"],
            rate["find"],
            format_ratio(times["find"], times["listing"]),
            f"≥ 20,000 files/s (slowest {slowest:,.0f})",
        ),
        BenchmarkRow(
            "S3",
            f"hashing {len(paths):,} files of 110 kB in {WORKERS} processes / `xargs -P{WORKERS} "
            f"sha256sum`",
            rate["hashing"],
            rate["sha256sum"],
            format_ratio(times["sha256sum"], times["hashing"]),
            "≥ 1.0",
        ),
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(" | ".join(row) for row in measure_rows(Path(folder))))
