"""Draw images of a set evenly over its classes, the same ones for every model."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from densecl.seeding import derive_seed


def rank_in_classes(
    word: str, image_ids: Iterable[str], labels: Iterable[int | str]
) -> NDArray[np.int64]:
    """[n]: the place of each image, from 0, in a random order of the images of its class, which
    `word` and the image_ids decide.
    """
    keys = pd.Series([derive_seed(0, word, image_id) for image_id in image_ids], dtype="int64")
    ranks = keys.groupby(np.asarray(list(labels))).rank(method="first")
    return np.asarray(ranks.to_numpy() - 1, dtype=np.int64)


def draw_evenly(
    word: str, image_ids: Iterable[str], labels: Iterable[int | str], images: int
) -> NDArray[np.int64]:
    """Positions in rising order of at most `images` images: as many of each class as of any other,
    as far as it has them.
    """
    names = list(image_ids)
    ranks = rank_in_classes(word, names, labels)
    keys = np.array([derive_seed(0, word, name) for name in names], dtype=np.int64)
    return np.sort(np.lexsort((keys, ranks))[:images])
