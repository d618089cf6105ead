"""The photograph that an image was made from, by the names of files."""

from collections.abc import Iterable

import pandas as pd

# ImageNet's own names survive in the names of corrupted and stylized copies.
IMAGENET_NAME = r"(ILSVRC2012_[a-z]+_\d{8})"
FOLDER_AND_STEM = r"((?:[^/]+/)?[^/]+?)(?:\.[^./]*)?\Z"
CUE_CONFLICT = r"([a-z]+\d+)-[a-z]+\d+\Z"  # of one content image in the style of another


def find_sources(dataset: str, image_ids: Iterable[str]) -> pd.Series:
    """One name per image; images with the same name were made from the same photograph.

    The name is ImageNet's where the file's name holds it, else the folder and the file's name
    without its ending; for cue conflicts their content image. Two photographs of one name cost
    nothing: what they have in common is estimated, not assumed. `image_ids` may begin with the
    dataset's name.
    """
    paths = pd.Series(list(image_ids), dtype="str").str.removeprefix(f"{dataset}/")
    published = paths.str.extract(IMAGENET_NAME, expand=False)
    named = paths.str.extract(FOLDER_AND_STEM, expand=False)
    contents = named.str.replace(CUE_CONFLICT, r"\1", regex=True)
    return published.fillna(contents).fillna(paths)
