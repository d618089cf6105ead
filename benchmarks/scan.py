"""Throughput of listing and of hashing a dataset, against `find` and `sha256sum`."""

import subprocess
from pathlib import Path

import numpy as np

from benchmarks.measure import BenchmarkRow, make_rate_row, measure_alternating
from densecl.datasets.manifests.listing import list_dataset
from densecl.datasets.manifests.scan import hash_file, run_in_parallel

WORKERS = 2
LISTED = (100, 1000, 0)  # classes, files per class, bytes per file: only the names are read
HASHED = (20, 300, 110_000)  # the mean size of an ImageNet photograph


def write_tree(root: Path, classes: int, files: int, size: int) -> list[str]:
    """Class names; each class is a folder of files of random bytes."""
    rng = np.random.default_rng(0)
    names = [f"n{number:08d}" for number in range(classes)]
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(files):
            (root / name / f"{name}_{number}.JPEG").write_bytes(rng.bytes(size))
    return names


def run_shell(command: str, root: Path) -> None:
    """Run a command line in which "$1" is `root`."""
    subprocess.run(["sh", "-c", command, "sh", root], check=True, stdout=subprocess.DEVNULL)


def measure_scan(folder: Path) -> list[BenchmarkRow]:
    """Both in 2 processes."""
    listed_root, hashed_root = folder / "names", folder / "bytes"
    classes, hashed_classes = write_tree(listed_root, *LISTED), write_tree(hashed_root, *HASHED)
    files = list_dataset(hashed_root, "wnid", hashed_classes).images
    paths = [hashed_root / path for path, _ in files]
    find = 'find "$1" -name "*.JPEG"'
    sha256sum = f"{find} -print0 | xargs -0 -n 64 -P {WORKERS} sha256sum"
    calls = {
        "listing": lambda: list_dataset(listed_root, "wnid", classes),
        "find": lambda: run_shell(f"{find} | sort", listed_root),
        "hashing": lambda: list(run_in_parallel(hash_file, paths, WORKERS)),
        "sha256sum": lambda: run_shell(sha256sum, hashed_root),
    }
    times = measure_alternating(calls, 5)
    count, megabytes = LISTED[0] * LISTED[1], len(paths) * HASHED[2] / 1e6
    slowest = count / max(times["listing"])
    listing = (
        f"listing {count:,} files of {LISTED[0]} classes with their labels / `find` and `sort`"
    )
    hashing = (
        f"hashing {len(paths):,} files of 110 kB in {WORKERS} processes / "
        f"`xargs -P{WORKERS} sha256sum`"
    )
    target = f"≥ 20,000 files/s (slowest {slowest:,.0f})"
    return [
        make_rate_row("S2", listing, times, "listing", "find", target, count, "files"),
        make_rate_row("S3", hashing, times, "hashing", "sha256sum", "≥ 1.0", megabytes, "MB"),
    ]
