"""Entries of `transfer` on disk for tests of their listing."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from densecl import paths
from densecl.artifacts import TransferPlan, write_json
from densecl.config.probe_params import TransferParams
from densecl.datasets.storage.transfer import load_transfer
from steps import prepare_transfer

XML = """<annotation><filename>x.jpg</filename>
<object><name>dog</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>8.0</xmax><ymax>6</ymax></bndbox></object>
<object><name>cat</name><part><name>head</name></part>
<bndbox><xmax>12</xmax><xmin>11</xmin><ymax>12</ymax><ymin>11</ymin></bndbox></object></annotation>"""


def save_image(path: Path, size: tuple[int, int] = (12, 12), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def save_mask(path: Path, values: np.ndarray, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    if mode == "P":
        image.putpalette([(17 * i) % 256 for i in range(768)])
    image.save(path)


def prepare(tmp_path: Path, *, optional: bool = False, **values: object) -> pd.DataFrame:
    """The rows of the entry `x`, by path."""
    values = {"root": str(tmp_path), "tracked_by": str(tmp_path)} | values
    params = TransferParams.model_validate(values)
    record = TransferPlan(name="x", images=params, optional=optional)
    write_json(paths.plan_file("transfer/x"), record)
    prepare_transfer.main("x")
    return load_transfer("x", params, paths.transfer_file("x")).set_index("path")


def build_voc(root: Path) -> Path:
    for number in range(3):
        save_image(root / "JPEGImages" / f"2007_{number}.jpg", (12, 14), number)
        (root / "Annotations").mkdir(exist_ok=True)
    save_mask(root / "SegmentationClass" / "2007_0.png", np.full((14, 12), 5), "P")
    save_mask(root / "SegmentationClass" / "2007_2.png", np.full((14, 12), 255), "P")
    save_mask(root / "SegmentationObject" / "2007_2.png", np.full((14, 12), 1), "P")
    (root / "Annotations" / "2007_0.xml").write_text(XML)
    for kind, names in (
        ("Segmentation", "2007_0\n2007_2\n"),
        ("Main", "2007_0 -1\n2007_1  1\n2007_9  0\n"),
    ):
        (root / "ImageSets" / kind).mkdir(parents=True)
        (root / "ImageSets" / kind / ("val.txt" if kind[0] == "S" else "dog.txt")).write_text(names)
    return root
