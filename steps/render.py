"""Draw a built-in dataset with its object masks."""

import shutil

from densecl import paths
from densecl.artifacts import DatasetPlan, read_json
from densecl.datasets.synthetic.styles import render_dataset
from densecl.errors import DenseclError


def main(dataset: str) -> None:
    """Write data/rendered/<folder> and data/rendered/masks/<folder>."""
    plan = read_json(DatasetPlan, paths.plan_file(dataset))
    if plan.render is None:
        raise DenseclError(
            f"render.{dataset}: no such entry; {dataset} is read from {plan.dataset.root}"
        )
    images, masks = (
        paths.rendered_folder(plan.render.folder),
        paths.masks_folder(plan.render.folder),
    )
    for folder in (images, masks):
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{render_dataset(plan.render, images, masks)} images in {images}")
