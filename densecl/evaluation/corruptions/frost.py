"""The authors' photographs of frost. They are no part of this package."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densecl.config.probe_params import FROST_FILES
from densecl.datasets.storage.decode import decode_image
from densecl.errors import DataError
from densecl.evaluation.corruptions.scaling import PUBLISHED_SIDE


def read_frost(
    folder: Path, crop: tuple[int, int] = (PUBLISHED_SIDE, PUBLISHED_SIDE)
) -> list[NDArray[np.uint8]]:
    """The photographs uint8 [H, W, 3], as published. DataError where one is missing or not larger
    than the crops (height, width) that are drawn from it.
    """
    for name in FROST_FILES:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder}: found no {name}, expected the photographs {', '.join(FROST_FILES)} of "
                "ImageNet-C's authors; correct evaluate.probes.corruptions.frost, or take frost "
                "out of evaluate.probes.corruptions.names"
            )
    photographs = [np.asarray(decode_image(folder / name)) for name in FROST_FILES]
    for name, photograph in zip(FROST_FILES, photographs, strict=True):
        height, width = photograph.shape[:2]
        if height <= crop[0] or width <= crop[1]:
            raise DataError(
                f"{folder / name}: found {width} x {height} px, expected more than {crop[1]} x "
                f"{crop[0]} px, of which a crop is drawn; the authors' photographs are larger than "
                f"{PUBLISHED_SIDE} x {PUBLISHED_SIDE} px: for wider or higher images, take frost "
                "out of evaluate.probes.corruptions.names"
            )
    return photographs
