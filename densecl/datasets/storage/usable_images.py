"""The usable images of a set, as the stages after validation read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from densecl import paths
from densecl.artifacts import DatasetPlan, ValidationResult, read_json
from densecl.datasets.storage.manifest import check_unchanged, read_manifest, select_usable
from densecl.errors import DataError


@dataclass(frozen=True)
class ImageSet:
    """Usable rows of a set and where its images lie."""

    frame: pd.DataFrame
    root: Path
    preprocess: Literal["model", "as-is"] | None = None  # None: as the protocol says
    protocol: str = "folder"
    classes: tuple[str, ...] = ()  # wnids it is scored over; empty: as the protocol says


def load_usable_images(name: str) -> ImageSet:
    """Rows of the manifest less what validation excluded; DataError where validation refused the
    set or a file changed since.
    """
    plan = read_json(DatasetPlan, paths.plan_file(name))
    verdict = read_json(ValidationResult, paths.validation_file(name))
    if not verdict.passed:
        more = len(verdict.failures) - 1
        raise DataError(
            verdict.failures[0]
            + (f"; and {more} more, see {paths.VALIDATION_PAGE}" if more else "")
        )
    frame, root = (
        select_usable(read_manifest(paths.manifest_file(name)), verdict.excluded),
        Path(plan.dataset.root),
    )
    check_unchanged(frame, root)
    return ImageSet(frame, root, plan.preprocess, plan.protocol, plan.classes)
