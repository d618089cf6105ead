"""Draw built-in images with their object masks."""

import shutil

from densecl import paths
from densecl.artifacts import RenderPlan, read_json
from densecl.datasets.synthetic.styles import render_dataset


def main(name: str) -> None:
    """Write data/rendered/<folder> and data/rendered/masks/<folder>."""
    settings = read_json(RenderPlan, paths.plan_file(f"render/{name}")).settings
    images, masks = paths.rendered_folder(settings.folder), paths.masks_folder(settings.folder)
    for folder in (images, masks):
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{render_dataset(settings, images, masks)} images in {images}")
