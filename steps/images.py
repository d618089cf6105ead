"""The usable images of a set, as the stages after validation read them."""

from __future__ import annotations

from pathlib import Path

from densecl import layout
from densecl.datasets.manifest import read_manifest, require_unchanged, usable
from densecl.errors import DataError
from densecl.records import SetPlan, Verdict, read_json
from densecl.training.run import ImageSet


def usable_images(name: str) -> ImageSet:
    """Rows of the manifest less what validation excluded; DataError where validation refused the set or a file changed since."""
    plan = read_json(SetPlan, layout.plan(name))
    verdict = read_json(Verdict, layout.verdict(name))
    if not verdict.passed:
        more = len(verdict.failures) - 1
        raise DataError(verdict.failures[0] + (f"; and {more} more, see {layout.VALIDATION_PAGE}" if more else ""))
    frame, root = usable(read_manifest(layout.manifest(name)), verdict.excluded), Path(plan.dataset.root)
    require_unchanged(frame, root)
    return ImageSet(frame, root, plan.preprocess, plan.protocol, plan.classes)
