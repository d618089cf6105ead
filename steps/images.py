"""The usable images of a set, as the stages after validation read them."""

from __future__ import annotations

from pathlib import Path

from densecl import layout
from densecl.datasets.manifest import read_manifest, usable
from densecl.errors import DataError
from densecl.records import SetPlan, Verdict, read_json
from densecl.training.run import ImageSet


def usable_images(name: str) -> ImageSet:
    """Rows of the manifest less what validation excluded; DataError with the reason where validation refused the set."""
    plan = read_json(SetPlan, layout.plan(name))
    verdict = read_json(Verdict, layout.verdict(name))
    if not verdict.passed:
        more = len(verdict.failures) - 1
        raise DataError(verdict.failures[0] + (f"; and {more} more, see {layout.VALIDATION_PAGE}" if more else ""))
    frame = usable(read_manifest(layout.manifest(name)), verdict.excluded)
    return ImageSet(frame, Path(plan.dataset.root), plan.preprocess, plan.protocol, plan.classes)
