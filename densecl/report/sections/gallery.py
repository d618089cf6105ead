"""Thumbnails of evaluation images: some of each set, and those on which two modes part most."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from densecl import paths
from densecl.analysis.results import Comparison, seed_of
from densecl.datasets.storage.filenames import shown
from densecl.errors import DataError
from densecl.report.formatting import percent
from densecl.report.sections.classes import Names, name_of

EXAMPLES = 8
CHANGED = 6  # in each direction
SIDE = 112  # px, the longer side
QUALITY = 72


@dataclass(frozen=True)
class Thumbnail:
    """A picture with the words below it; without one, `why` says what stands in its way."""

    source: str  # data URI of a WebP, or ""
    why: str
    alt: str
    lines: tuple[tuple[str, str], ...]  # mode or "", text
    file: str


@dataclass(frozen=True)
class Gallery:
    title: str
    caption: str
    pictures: tuple[Thumbnail, ...]


class Images:
    """Where the images of a set lie: image_id -> thumbnail, through its manifest and the root that
    params give it.
    """

    def __init__(self, found: Comparison, root: Path, dataset: str) -> None:
        given = found.plan.params.get("datasets", {}).get(dataset, {})
        self.root = (
            root / str(given["root"]) if isinstance(given, dict) and given.get("root") else None
        )
        self.paths: dict[str, str] = {}
        self.why = "" if self.root else f"params name no root of {dataset}"
        if self.root:
            self._read(root / paths.manifest(dataset), paths.manifest(dataset))

    def _read(self, path: Path, name: Path) -> None:
        from densecl.datasets.storage.manifest import read_manifest

        if not path.is_file():
            self.why = f"no file {name}"
            return
        try:
            frame = read_manifest(path)
        except DataError as error:
            self.why = shown(error)
            return
        self.paths = dict(zip(frame["image_id"], frame["path"], strict=True))

    def thumbnail(self, image_id: str, alt: str, lines: tuple[tuple[str, str], ...]) -> Thumbnail:
        source, why = self._picture(image_id)
        return Thumbnail(source, why, alt, lines, shown(image_id))

    def _picture(self, image_id: str) -> tuple[str, str]:
        """A data URI and "", or "" and why there is none."""
        from densecl.datasets.storage.decode import decode

        if self.why or self.root is None:
            return "", self.why
        if image_id not in self.paths:
            return "", "not in the manifest"
        try:
            image = decode(self.root / self.paths[image_id])
        except (DataError, OSError) as error:
            return "", str(error).split("; ")[0].removeprefix(
                f"{shown(self.root / self.paths[image_id])}: "
            )
        image.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=QUALITY, method=4)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), ""


def examples(found: Comparison, dataset: str, names: Names, images: Images) -> Gallery | None:
    """Images of different classes, spread over the set; which ones is drawn by the set's name."""
    cells = [found.cells[dataset, m] for m in found.plan.modes if found.cells[dataset, m].rows]
    if not cells:
        return None
    labels = next(iter(cells[0].rows.values()))["label"]
    rng = np.random.default_rng(seed_of(dataset, "examples"))
    order = rng.permutation(labels.size)
    firsts = labels.iloc[order].drop_duplicates().head(EXAMPLES).sort_values(kind="stable")
    pictures = [
        images.thumbnail(
            str(i), f"{dataset}: {name_of(names, c).word}", (("", name_of(names, c).word),)
        )
        for i, c in firsts.items()
    ]
    return Gallery(
        "What it looks like", "One image each of some classes, drawn at random.", tuple(pictures)
    )


def changed(found: Comparison, dataset: str, names: Names, images: Images) -> Iterator[Gallery]:
    """Both directions of the first pair of modes: right under one, wrong under the other."""
    if not found.pairs:
        return
    first, second = found.pairs[0]
    one, two = found.cells[dataset, first], found.cells[dataset, second]
    seeds = sorted(one.rows.keys() & two.rows.keys())
    if not seeds:
        return
    a, b = (_over_seeds(cell.rows, seeds) for cell in (one, two))
    both = pd.merge(a, b, left_index=True, right_index=True, suffixes=("_a", "_b"))
    for ahead, behind, this, other in ((first, second, "_a", "_b"), (second, first, "_b", "_a")):
        gap, p = (both[f"{of}{this}"] - both[f"{of}{other}"] for of in ("correct", "p_true"))
        apart = both.assign(gap=gap, p=p)[gap > 0].reset_index()
        top = apart.sort_values(["gap", "p", "image_id"], ascending=[False, False, True]).head(
            CHANGED
        )
        pictures = [
            _pictured(row, names, images, ((first, "_a"), (second, "_b")))
            for row in top.to_dict("records")
        ]
        share = f"{len(apart):,} of {len(both):,} images ({percent(len(apart) / len(both))} %)"
        often = "" if len(seeds) == 1 else " more often"
        caption = (
            f"{ahead} is right{often} on {share} where {behind} is wrong; shown are those whose "
            f"probability of the true "
            "class differs most. Look for what they have in common."
        )
        yield Gallery(f"Right under {ahead}, wrong under {behind}", caption, tuple(pictures))


def _over_seeds(frames: dict[int, pd.DataFrame], seeds: list[int]) -> pd.DataFrame:
    """By image: share of the seeds that are right, mean p of the true class, the first seed's
    answer and confidence.
    """
    first = frames[seeds[0]]
    columns = ["correct", "p_true"]
    means = pd.concat([frames[s][columns].astype(float) for s in seeds]).groupby(level=0).mean()
    return means.join(first[["label", "prediction", "confidence"]])


def _pictured(
    row: dict[Any, Any], names: Names, images: Images, modes: tuple[tuple[str, str], ...]
) -> Thumbnail:
    truth = name_of(names, row["label_a"]).word
    said = tuple(
        (mode, f"{name_of(names, row[f'prediction{s}']).word} {100 * row[f'confidence{s}']:.0f} %")
        for mode, s in modes
    )
    alt = f"{truth}; " + ", ".join(f"{mode} says {text}" for mode, text in said)
    return images.thumbnail(str(row["image_id"]), alt, (("", truth), *said))
