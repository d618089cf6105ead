"""The usable images of a set, as the stages after validation read them."""

from __future__ import annotations

from pathlib import Path

from densecl import layout
from densecl.datasets.manifest import read_manifest, usable
from densecl.records import SetPlan, Verdict, read_json
from densecl.training.run import ImageSet


def usable_images(name: str) -> ImageSet:
    """Rows of the manifest less what validation excluded."""
    plan = read_json(SetPlan, layout.plan(name))
    excluded = read_json(Verdict, layout.verdict(name)).excluded
    return ImageSet(usable(read_manifest(layout.manifest(name)), excluded), Path(plan.dataset.root), plan.preprocess)
