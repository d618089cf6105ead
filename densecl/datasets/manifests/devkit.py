"""Labels of ImageNet's flat validation archive, from the development kit.

Its ground truth holds ILSVRC ids 1 to 1000, which are not in wnid order; meta.mat maps them to
wnids.
"""

import io
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.image_root import read_file
from densecl.errors import DataError

GROUND_TRUTH_FILE, META_FILE = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
# Folders of both files, below the devkit's folder or in its .tar.gz.
DEVKIT_FOLDERS = ("", "data", "ILSVRC2012_devkit_t12/data")
NUM_CLASSES = 1000  # ids above are inner nodes of the hierarchy
IMAGE_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")


def read_ground_truth(devkit: Path) -> list[str]:
    """Wnid of validation image 1, 2, ...; DataError names the invalid file."""
    lines = _read_devkit_file(devkit, GROUND_TRUTH_FILE).decode("ascii", "replace").split()
    wnids = _read_wnids(devkit)
    for number, line in enumerate(lines, 1):
        if line not in wnids:
            raise DataError(
                f"{to_printable(devkit)}: {GROUND_TRUTH_FILE}: line {number}: found {line!r}, "
                f"expected an id that {META_FILE} has"
            )
    return [wnids[line] for line in lines]


def parse_image_number(name: str) -> int:
    """Number (1, 2, ...) in the file name of a validation image; DataError if there is none."""
    match = IMAGE_NAME.fullmatch(name)
    if not match:
        raise DataError(
            f"{to_printable(name)}: found this name, expected ILSVRC2012_val_00000001.JPEG "
            f"(layout devkit)"
        )
    return int(match.group(1))


def _read_wnids(devkit: Path) -> dict[str, str]:
    """Wnid by ILSVRC id, as the ground truth spells it."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    table: Any = io.BytesIO(_read_devkit_file(devkit, META_FILE))  # scipy's stubs: file names only
    try:
        rows = loadmat(table, squeeze_me=True)["synsets"].reshape(-1)
        wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
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
            f"{to_printable(devkit)}: {META_FILE}: expected the table `synsets` of the ILSVRC2012 "
            f"devkit"
        ) from None
    return {str(number): wnid for number, wnid in wnids.items() if number <= NUM_CLASSES}


def _read_devkit_file(devkit: Path, name: str) -> bytes:
    for folder in DEVKIT_FOLDERS:
        with suppress(FileNotFoundError, NotADirectoryError):
            return read_file(devkit / folder / name)
    raise DataError(
        f"{to_printable(devkit)}: found no {name}; expected the ILSVRC2012 devkit, a folder or "
        f"its .tar.gz"
    )
