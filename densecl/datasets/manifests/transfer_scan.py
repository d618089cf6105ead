"""Scan the images, masks and boxes of an entry of `transfer` into its rows."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from densecl.config.probe_params import TransferParams
from densecl.datasets.manifests.inspect import inspect_file
from densecl.datasets.manifests.scan import run_in_parallel
from densecl.datasets.manifests.transfer_boxes import describe_size, read_boxes
from densecl.datasets.manifests.transfer_listing import TransferListing
from densecl.datasets.manifests.transfer_masks import (
    MaskInfo,
    check_no_objects,
    get_indices,
    inspect_mask,
)
from densecl.datasets.storage.decode import HARMLESS_PROBLEMS
from densecl.datasets.storage.transfer import (
    SCHEMA,
    get_boxes_folder,
    get_masks_folder,
)
from densecl.errors import DataError

Progress = Callable[[int, int], object]


def scan_transfer(
    name: str,
    params: TransferParams,
    listing: TransferListing,
    workers: int,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """A row per image (`densecl.datasets.storage.transfer.SCHEMA`), sorted by path.

    DataError if no image can be used, with the first problem, or if its masks of classes show
    objects.
    """
    root, masks, boxes = Path(params.root), get_masks_folder(params), get_boxes_folder(params)
    files = [root / image.path for image in listing.images]
    inspect = partial(inspect_mask, indices=get_indices(params))
    mask_files = [masks / image.mask for image in listing.images if image.mask]
    found_masks = list(run_in_parallel(inspect, mask_files, workers))
    check_no_objects(params, found_masks)
    mask_infos = iter(found_masks)
    rows = []
    for image, info in zip(
        listing.images, run_in_parallel(inspect_file, files, workers, progress), strict=True
    ):
        mask = next(mask_infos) if image.mask else None
        size = info.width, info.height
        found, box_problem = read_boxes(boxes / image.boxes, *size) if image.boxes else ([], "")
        problems = [info.problem, _compare_mask(mask, *size), box_problem]
        problem = next((text for text in problems if text not in HARMLESS_PROBLEMS), info.problem)
        rows.append(
            (
                *(f"{name}/{image.path}", image.path, image.class_name),
                *(info.width, info.height, info.bytes, info.sha256, problem),
                *(image.mask, mask.sha256 if mask else "", json.dumps(found)),
            )
        )
    frame = pd.DataFrame(rows, columns=SCHEMA.names)
    if not frame["problem"].isin(HARMLESS_PROBLEMS).any():
        raise DataError(
            f"transfer.{name}: none of its {len(frame)} images can be used; the first, "
            f"{frame['path'].iloc[0]}: {frame['problem'].iloc[0]}"
        )
    return frame


def _compare_mask(mask: MaskInfo | None, width: int, height: int) -> str:
    if mask is None or mask.problem:
        return f"mask: {mask.problem}" if mask else ""
    if (mask.width, mask.height) != (width, height):
        return f"mask: {describe_size((mask.width, mask.height), (width, height))}"
    return ""
