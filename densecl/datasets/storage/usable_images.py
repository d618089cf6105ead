"""The usable images of a dataset, as stages after validation read them."""

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
    """Usable rows of a dataset, and the location of its images."""

    frame: pd.DataFrame
    root: Path
    preprocess: Literal["model", "as-is"] | None = None  # None: as in the protocol
    protocol: str = "folder"
    classes: tuple[str, ...] = ()  # wnids it is scored over; empty: as in the protocol


def load_usable_images(name: str) -> ImageSet:
    """Rows of the manifest without those that validation excluded; DataError if validation failed
    or a file has changed since.
    """
    return load_planned_images(read_json(DatasetPlan, paths.plan_file(name)))


def load_planned_images(plan: DatasetPlan) -> ImageSet:
    """As `load_usable_images`, of the dataset of a plan."""
    verdict = read_json(ValidationResult, paths.validation_file(plan.name))
    if not verdict.passed:
        first, *others = verdict.failures
        more = f"; and {len(others)} more, see {paths.VALIDATION_PAGE}" if others else ""
        raise DataError(first + more)
    root = Path(plan.dataset.root)
    frame = select_usable(read_manifest(paths.manifest_file(plan.name)), verdict.excluded)
    check_unchanged(frame, root)
    return ImageSet(frame, root, plan.preprocess, plan.protocol, plan.classes)
