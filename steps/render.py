"""Draw a built-in set with its object masks."""

from __future__ import annotations

import shutil

from densecl import paths
from densecl.artifacts import SetPlan, read_json
from densecl.datasets.synthetic.styles import render_set
from densecl.errors import DenseclError


def main(set: str) -> None:
    """Write data/rendered/<folder> and data/rendered/masks/<folder>."""
    plan = read_json(SetPlan, paths.plan(set))
    if plan.render is None:
        raise DenseclError(f"render.{set}: no such entry; {set} is read from {plan.dataset.root}")
    images, masks = paths.rendered(plan.render.folder), paths.masks(plan.render.folder)
    for folder in (images, masks):
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{render_set(plan.render, images, masks)} images in {images}")
