"""Thumbnails of evaluation images: examples of each dataset, and images on which two modes differ
most.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from densecl import paths
from densecl.analysis.results import Comparison, compute_report_seed
from densecl.config.params import DatasetParams
from densecl.datasets.storage.decode import decode_image
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.manifest import read_manifest
from densecl.datasets.storage.remote_root import locate_root
from densecl.datasets.storage.remote_store import is_remote
from densecl.errors import DataError
from densecl.pages.formatting import format_percent
from densecl.pages.templates import encode_thumbnail
from densecl.report.sections.classes import ClassNames, get_class_name

EXAMPLE_COUNT = 8
CHANGED_COUNT = 6  # in each direction
THUMBNAIL_PX = 112  # px, the longer side
WEBP_OPTIONS = {"quality": 72, "method": 4}


@dataclass(frozen=True)
class Thumbnail:
    """A picture with a caption; `missing_reason` if the picture is missing."""

    data_uri: str  # data URI of a WebP, or ""
    missing_reason: str
    alt: str
    lines: tuple[tuple[str, str], ...]  # mode or "", text
    file: str


@dataclass(frozen=True)
class Gallery:
    title: str
    caption: str
    pictures: tuple[Thumbnail, ...]


def _locate_folder(folder: str, settings: dict[str, object]) -> Path:
    """Where the images of a root lie, also those of shards in a store."""
    if not is_remote(folder):
        return Path(folder)
    return locate_root(DatasetParams.model_validate(settings))


class ThumbnailLoader:
    """Thumbnails by image_id, located by the dataset's manifest and root."""

    def __init__(self, comparison: Comparison, root: Path, dataset: str) -> None:
        settings = comparison.plan.params.get("datasets", {}).get(dataset)
        folder = settings.get("root") if isinstance(settings, dict) else None
        self.image_files: dict[str, Path] = {}
        self.missing_reason = "not in the manifest"
        file = paths.manifest_file(dataset)
        if not folder:
            self.missing_reason = f"params name no root of {dataset}"
        elif not (root / file).is_file():
            self.missing_reason = f"no file {file}"
        else:
            try:
                frame = read_manifest(root / file)
                place = root / _locate_folder(str(folder), settings)
            except DataError as error:
                self.missing_reason = to_printable(error)
            else:
                files = (place / path for path in frame["path"])
                self.image_files = dict(zip(frame["image_id"], files, strict=True))

    def make_thumbnail(
        self, image_id: str, alt: str, lines: tuple[tuple[str, str], ...]
    ) -> Thumbnail:
        data_uri, missing_reason = "", self.missing_reason
        if path := self.image_files.get(image_id):
            try:
                image = decode_image(path)
                data_uri = encode_thumbnail(image, THUMBNAIL_PX, "WEBP", **WEBP_OPTIONS)
                missing_reason = ""
            except (DataError, OSError) as error:
                reason = str(error).split("; ", maxsplit=1)[0]
                missing_reason = reason.removeprefix(f"{to_printable(path)}: ")
        return Thumbnail(data_uri, missing_reason, alt, lines, to_printable(image_id))


def build_examples(
    comparison: Comparison, dataset: str, names: ClassNames, loader: ThumbnailLoader
) -> Gallery | None:
    """Images of different classes, spread over the dataset; the choice is seeded by the dataset's
    name.
    """
    frames = [
        rows for m in comparison.plan.modes for rows in comparison.cells[dataset, m].rows.values()
    ]
    if not frames:
        return None
    labels = frames[0]["label"]
    order = np.random.default_rng(compute_report_seed(dataset, "examples")).permutation(labels.size)
    firsts = labels.iloc[order].drop_duplicates().head(EXAMPLE_COUNT).sort_values(kind="stable")
    examples = {str(i): get_class_name(names, c).display_name for i, c in firsts.items()}
    pictures = [
        loader.make_thumbnail(i, f"{dataset}: {name}", (("", name),))
        for i, name in examples.items()
    ]
    return Gallery(
        "What it looks like", "One image each of some classes, drawn at random.", tuple(pictures)
    )


def iter_changed_galleries(
    comparison: Comparison, dataset: str, names: ClassNames, loader: ThumbnailLoader
) -> Iterator[Gallery]:
    """Both directions of the first pair of modes: correct in one, wrong in the other."""
    if not comparison.mode_pairs:
        return
    first, second = comparison.mode_pairs[0]
    first_cell, second_cell = comparison.cells[dataset, first], comparison.cells[dataset, second]
    seeds = sorted(first_cell.rows.keys() & second_cell.rows.keys())
    if not seeds:
        return
    first_rows, second_rows = (
        _compute_seed_means(cell.rows, seeds) for cell in (first_cell, second_cell)
    )
    merged = pd.merge(
        first_rows, second_rows, left_index=True, right_index=True, suffixes=("_a", "_b")
    )
    for ahead, behind, ahead_suffix, behind_suffix in (
        (first, second, "_a", "_b"),
        (second, first, "_b", "_a"),
    ):
        gap, p = (
            merged[f"{column}{ahead_suffix}"] - merged[f"{column}{behind_suffix}"]
            for column in ("correct", "p_true")
        )
        differing = merged.assign(gap=gap, p=p)[gap > 0].reset_index()
        top = differing.sort_values(["gap", "p", "image_id"], ascending=[False, False, True]).head(
            CHANGED_COUNT
        )
        pictures = [
            _build_thumbnail(row, names, loader, ((first, "_a"), (second, "_b")))
            for row in top.to_dict("records")
        ]
        share = (
            f"{len(differing):,} of {len(merged):,} images "
            f"({format_percent(len(differing) / len(merged))} %)"
        )
        qualifier = "" if len(seeds) == 1 else " more often"
        caption = (
            f"{ahead} is right{qualifier} on {share} where {behind} is wrong; shown are those "
            f"whose "
            f"probability of the true "
            "class differs most. Look for what they have in common."
        )
        yield Gallery(f"Right under {ahead}, wrong under {behind}", caption, tuple(pictures))


def _compute_seed_means(frames: dict[int, pd.DataFrame], seeds: list[int]) -> pd.DataFrame:
    """By image: share of seeds that are correct, mean p of the true class, prediction and
    confidence of the first seed.
    """
    first_rows = frames[seeds[0]]
    columns = ["correct", "p_true"]
    means = pd.concat([frames[s][columns].astype(float) for s in seeds]).groupby(level=0).mean()
    return means.join(first_rows[["label", "prediction", "confidence"]])


def _build_thumbnail(
    row: dict[Any, Any],
    names: ClassNames,
    loader: ThumbnailLoader,
    modes: tuple[tuple[str, str], ...],
) -> Thumbnail:
    truth = get_class_name(names, row["label_a"]).display_name
    answers = tuple(
        (
            mode,
            f"{get_class_name(names, row[f'prediction{s}']).display_name} "
            f"{100 * row[f'confidence{s}']:.0f} %",
        )
        for mode, s in modes
    )
    alt = f"{truth}; " + ", ".join(f"{mode} says {text}" for mode, text in answers)
    return loader.make_thumbnail(str(row["image_id"]), alt, (("", truth), *answers))
