"""Two reports of planted predictions, made once."""

from pathlib import Path

import pytest

from densecl import paths
from densecl.report.render import write_report
from tests.report.report_factory import RECORDS, make, plant_classes, plant_images


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One seed; the cell (stylized, global) is missing; sketch has images in a folder, imagenet-a
    in a .zip, others none.
    """
    root = tmp_path_factory.mktemp("single")
    plan = make(root)
    (root / paths.evaluation_file("stylized", "global", 0)).unlink()
    plant_classes(root)
    plant_images(root, "sketch")
    plant_images(root, "imagenet-a", packed=True)
    return root, write_report(plan, root, RECORDS)


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Three seeds, nothing missing, no images."""
    root = tmp_path_factory.mktemp("several")
    return root, write_report(make(root, seeds=(0, 1, 2)), root, RECORDS)
