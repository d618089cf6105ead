"""ImageNet's validation images as the flat archive holds them: labels from the development kit.

Its ground truth counts in ILSVRC ids 1 to 1000, which are not in wnid order; meta.mat says which
wnid an id is.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from densecl.datasets.storage.filenames import shown
from densecl.datasets.storage.image_root import read
from densecl.errors import DataError

TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
PLACES = (
    "",
    "data",
    "ILSVRC2012_devkit_t12/data",
)  # of both files below the kit, a folder or its .tar.gz
CLASSES = 1000  # ids above are inner nodes of the hierarchy
IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")


def truth(devkit: Path) -> list[str]:
    """Wnid of validation image 1, 2, ...; DataError that names the file at fault."""
    lines = _read(devkit, TRUTH).decode("ascii", "replace").split()
    names = _wnids(devkit)
    unknown = [
        (place, line)
        for place, line in enumerate(lines, 1)
        if not line.isdecimal() or int(line) not in names
    ]
    if unknown:
        place, line = unknown[0]
        raise DataError(
            f"{shown(devkit)}: {TRUTH}: line {place}: found {line!r}, expected an id that {META} "
            f"has"
        )
    return [names[int(line)] for line in lines]


def number(name: str) -> int:
    """1, 2, ... of a validation image's file name; DataError."""
    found = IMAGE.fullmatch(name)
    if not found:
        raise DataError(
            f"{shown(name)}: found this name, expected ILSVRC2012_val_00000001.JPEG (layout devkit)"
        )
    return int(found.group(1))


def _wnids(devkit: Path) -> dict[int, str]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    content = _read(devkit, META)
    try:
        table: Any = io.BytesIO(content)  # its stubs know file names only
        rows = loadmat(table, squeeze_me=True)["synsets"].reshape(-1)
        return {
            int(row["ILSVRC2012_ID"]): str(row["WNID"])
            for row in rows
            if int(row["ILSVRC2012_ID"]) <= CLASSES
        }
    except (
        ValueError,
        KeyError,
        TypeError,
        NotImplementedError,
        IndexError,
        OSError,
        MatReadError,
    ):
        raise DataError(
            f"{shown(devkit)}: {META}: expected the table `synsets` of the ILSVRC2012 devkit"
        ) from None


def _read(devkit: Path, name: str) -> bytes:
    for place in PLACES:
        try:
            return read(devkit / place / name)
        except (FileNotFoundError, NotADirectoryError):
            continue
    raise DataError(
        f"{shown(devkit)}: found no {name}; expected the ILSVRC2012 devkit, a folder or its .tar.gz"
    )
