"""The usable images of a set, as the stages after validation read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from densecl import paths
from densecl.artifacts import SetPlan, Verdict, read_json
from densecl.datasets.storage.manifest import read_manifest, require_unchanged, usable
from densecl.errors import DataError


@dataclass(frozen=True)
class ImageSet:
    """Usable rows of a set and where its images lie."""

    frame: pd.DataFrame
    root: Path
    preprocess: Literal["model", "as-is"] | None = None  # None: as the protocol says
    protocol: str = "folder"
    classes: tuple[str, ...] = ()  # wnids it is scored over; empty: as the protocol says


def usable_images(name: str) -> ImageSet:
    """Rows of the manifest less what validation excluded; DataError where validation refused the
    set or a file changed since.
    """
    plan = read_json(SetPlan, paths.plan(name))
    verdict = read_json(Verdict, paths.verdict(name))
    if not verdict.passed:
        more = len(verdict.failures) - 1
        raise DataError(
            verdict.failures[0]
            + (f"; and {more} more, see {paths.VALIDATION_PAGE}" if more else "")
        )
    frame, root = (
        usable(read_manifest(paths.manifest(name)), verdict.excluded),
        Path(plan.dataset.root),
    )
    require_unchanged(frame, root)
    return ImageSet(frame, root, plan.preprocess, plan.protocol, plan.classes)
