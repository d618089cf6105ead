"""Indexing a set of files: what the listing alone and the hashing alone reach, beside `find` and
`sha256sum`.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.measure import Row, alternate, ratio
from densecl.datasets.manifests.scan import digest, in_parallel, listing

WORKERS = 2
LISTED = (100, 1000)  # classes, empty files a class: only their names are read
HASHED = (
    20,
    300,
    110_000,
)  # classes, files a class, bytes: the mean size of an ImageNet photograph


def tree(root: Path, classes: int, files: int, size: int) -> list[str]:
    """Class names; each class a folder of files of random bytes."""
    rng = np.random.default_rng(0)
    names = [f"n{number:08d}" for number in range(classes)]
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(files):
            (root / name / f"{name}_{number}.JPEG").write_bytes(rng.bytes(size))
    return names


def found(root: Path) -> None:
    """What `find` takes to print the same paths, sorted."""
    subprocess.run(
        ["sh", "-c", 'find "$1" -name "*.JPEG" | sort', "find", root],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def summed(root: Path) -> None:
    """sha256sum of every file in two processes."""
    command = f'find "$1" -name "*.JPEG" -print0 | xargs -0 -n 64 -P {WORKERS} sha256sum'
    subprocess.run(["sh", "-c", command, "sha256sum", root], check=True, stdout=subprocess.DEVNULL)


def rows(place: Path) -> list[Row]:
    named, filled = place / "names", place / "bytes"
    classes, other = tree(named, *LISTED, 0), tree(filled, *HASHED)
    paths = [filled / path for path, _ in listing(filled, "wnid", other)]
    kinds = {
        "listing": lambda: listing(named, "wnid", classes),
        "find": lambda: found(named),
        "hashing": lambda: list(in_parallel(digest, paths, WORKERS)),
        "sha256sum": lambda: summed(filled),
    }
    times = alternate(kinds, 5)
    files, megabytes = LISTED[0] * LISTED[1], len(paths) * HASHED[2] / 1e6
    rate = {name: f"{files / median(times[name]):,.0f} files/s" for name in ("listing", "find")}
    rate |= {
        name: f"{megabytes / median(times[name]):,.0f} MB/s" for name in ("hashing", "sha256sum")
    }
    slowest = files / max(times["listing"])
    return [
        Row(
            "S2",
            f"listing {files:,} files of {LISTED[0]} classes with their labels / `find` and `sort`",
            rate["listing"],
            rate["find"],
            ratio(times["find"], times["listing"]),
            f"≥ 20,000 files/s (slowest {slowest:,.0f})",
        ),
        Row(
            "S3",
            f"hashing {len(paths):,} files of 110 kB in {WORKERS} processes / `xargs -P{WORKERS} "
            f"sha256sum`",
            rate["hashing"],
            rate["sha256sum"],
            ratio(times["sha256sum"], times["hashing"]),
            "≥ 1.0",
        ),
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(" | ".join(row) for row in rows(Path(folder))))
