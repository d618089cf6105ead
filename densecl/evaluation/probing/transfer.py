"""Images of an entry of `transfer` as a model sees them, with masks and boxes that went through the
same geometry. H x W is the model's input.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from densecl import paths
from densecl.artifacts import Preprocessing
from densecl.config.probe_params import TransferParams
from densecl.datasets.storage.decode import Orientation, find_turn
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.image_root import read_file
from densecl.datasets.storage.transfer import OBJECT_LEVEL, get_masks_folder, load_transfer
from densecl.errors import DataError
from densecl.evaluation.probing.context import ProbeContext, iter_pixels
from densecl.evaluation.sources import find_sources

IGNORED = 255  # index in masks of VOC and of folders
BACKGROUND = "background"
MASKS_AT_ONCE = 256


class Box(NamedTuple):
    """Edges in pixels of the model's input: x0 <= x < x1."""

    class_name: str
    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True)
class TransferImages:
    """The usable images of an entry: rows of `densecl.datasets.storage.transfer.SCHEMA`."""

    name: str
    params: TransferParams
    frame: pd.DataFrame
    preprocessing: Preprocessing

    def build_rows(self) -> pd.DataFrame:
        """`image_id` and `source`, to which a probe adds its columns."""
        sources = find_sources(self.name, self.frame["image_id"])
        return pd.DataFrame(
            {"image_id": self.frame["image_id"].to_numpy(), "source": sources.to_numpy()}
        )

    def iter_images(self, batch_size: int) -> Iterator[Tensor]:
        """Batches uint8 [B, 3, H, W], preprocessed, in the order of `frame`."""
        root = Path(self.params.root)
        yield from iter_pixels(
            [root / path for path in self.frame["path"]], self.preprocessing, batch_size
        )

    def select(self, rows: "pd.Series[bool] | NDArray[np.bool_]") -> "TransferImages":
        """Those of some rows."""
        frame = self.frame[rows].reset_index(drop=True)
        return TransferImages(self.name, self.params, frame, self.preprocessing)

    def select_masked(self) -> "TransferImages":
        """Those with a mask; DataError if there is none."""
        selected = self.select(self.frame["mask"] != "")
        if selected.frame.empty:
            raise DataError(
                f"transfer.{self.name}: none of its {len(self.frame)} images has a mask; set its "
                "masks or another layout, or name another entry"
            )
        return selected

    @property
    def holds_objects(self) -> bool:
        """True if a mask shows the one object of its image, not indices of classes."""
        return self.params.mask_values == "object"

    def read_masks(self) -> NDArray[np.uint8]:
        """Values [n, H, W] of the masks, all of `frame`: as in the file for indices of classes, 1
        in the object and 0 outside for objects; IGNORED where the input shows no image. Turned as
        the images are.

        DataError if a mask changed since it was listed.
        """
        root, folder = Path(self.params.root), get_masks_folder(self.params)
        _, height, width = self.preprocessing.input_size
        masks = np.empty((len(self.frame), height, width), np.uint8)
        columns_read = (self.frame[name] for name in ("path", "mask", "mask_sha256"))
        for index, (image, path, digest) in enumerate(zip(*columns_read, strict=True)):
            values = self._read_mask(folder / path, digest)
            if self.preprocessing.exif == "apply" and (turn := find_turn(root / image)) is not None:
                values = np.asarray(Image.fromarray(values).transpose(turn))
            rows, columns = locate_pixels(values.shape, self.preprocessing)
            masks[index] = np.where(
                (rows >= 0)[:, None] & (columns >= 0), values[rows[:, None], columns], IGNORED
            )
        return masks

    def _read_mask(self, path: Path, digest: str) -> NDArray[np.uint8]:
        try:
            content = read_file(path)
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise DataError(
                f"{to_printable(path)}: changed after it was listed; `dvc repro -f "
                f"prepare-transfer@{self.name}` lists it again"
            )
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if not self.holds_objects:
                return np.asarray(image)
            return (np.asarray(image.convert("L")) >= OBJECT_LEVEL).astype(np.uint8)

    def iter_labels(self, classes: list[str], batch_size: int) -> Iterator[Tensor]:
        """Classes int64 [B, H, W] of the pixels by their place in `classes`, in batches as those of
        `iter_images`; -1 for ignored pixels and for classes that are not there.
        """
        for part in self.iter_parts(batch_size):
            yield part._read_labels(classes)

    def iter_parts(self, size: int) -> Iterator["TransferImages"]:
        """The entry in parts of at most `size` images, in order."""
        for start in range(0, len(self.frame), size):
            frame = self.frame.iloc[start : start + size]
            yield TransferImages(self.name, self.params, frame, self.preprocessing)

    def _read_labels(self, classes: list[str]) -> Tensor:
        if self.holds_objects:
            place = {name: index for index, name in enumerate(classes)}
            objects = [place.get(name, -1) for name in self.frame["class"]]
            tables = torch.full((len(objects), 256), -1)
            tables[:, 0] = place.get(BACKGROUND, -1)
            tables[:, 1] = torch.tensor(objects)
        else:
            table = torch.full((256,), -1)
            for index, name in enumerate(classes):
                table[int(name)] = index
            tables = table.expand(len(self.frame), 256)
        values = torch.from_numpy(self.read_masks())
        return tables.gather(1, values.flatten(1).long()).view(values.shape)

    def list_classes(self) -> list[str]:
        """Names of the classes that the masks show, sorted; indices as text. Background first."""
        if self.holds_objects:
            return [BACKGROUND, *sorted(set(self.frame["class"]))]
        parts = (np.unique(part.read_masks()).tolist() for part in self.iter_parts(MASKS_AT_ONCE))
        values = {value for part in parts for value in part}
        return [str(value) for value in sorted(values - self._ignored_values)]

    @property
    def _ignored_values(self) -> set[int]:
        # ADE20K: 0 is "other"; 255 does not occur in its 150 classes.
        return {0, IGNORED} if self.params.layout == "ade20k" else {IGNORED}

    def read_boxes(self) -> list[list[Box]]:
        """Boxes of each image in pixels of the input; those that the crop leaves out are not
        there.
        """
        result = []
        for text, width, height in zip(
            self.frame["boxes"], self.frame["width"], self.frame["height"], strict=True
        ):
            rows, columns = locate_pixels((height, width), self.preprocessing)
            boxes = [_locate_box(name, edges, rows, columns) for name, *edges in json.loads(text)]
            result.append([box for box in boxes if box])
        return result


def load_images(context: ProbeContext, name: str, exif: Orientation = "ignore") -> TransferImages:
    """The images of an entry, preprocessed as the validation images; DataError if they cannot be
    used. `exif`: by default as they are stored, since so are their masks and boxes.
    """
    params = context.plan.transfer[name]
    frame = load_transfer(name, params, paths.transfer_file(name))
    preprocessing = context.preprocessing.model_copy(
        update={"rule": "model", "border": 0, "exif": exif}
    )
    return TransferImages(name, params, frame, preprocessing)


def check_distinct(fit: TransferImages, test: TransferImages) -> None:
    """DataError if an image, by its content, is in both entries: fitted on and scored."""
    copies = test.frame["sha256"].isin(fit.frame["sha256"])
    if copies.any():
        raise DataError(
            f"transfer.{test.name}: {copies.sum()} of its {len(copies)} images are in "
            f"transfer.{fit.name} too, which is fitted on, such as "
            f"{to_printable(test.frame['path'][copies].iloc[0])}; expected different images: set "
            "the split of both entries, or roots without common images"
        )


def locate_pixels(
    size: tuple[int, int], preprocessing: Preprocessing
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column in an image of `size` (height, width) that each row [H] and column [W] of the
    model's input shows, -1 for padding: resized by nearest neighbours, then cropped as images are.
    """
    values = preprocessing.model_dump(exclude={"rule", "border", "exif"}, mode="json")
    return _locate_pixels(tuple(map(int, size)), json.dumps(values))


@lru_cache(maxsize=4096)
def _locate_pixels(
    size: tuple[int, int], settings: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    values = json.loads(settings) | {"interpolation": "nearest"}
    transform = create_transform(**values, is_training=False, normalize=False)
    for part in transform.transforms:
        if hasattr(part, "fill"):
            part.fill = 0
    places = []
    for axis in (0, 1):
        # Image of the row or the column of each of its pixels, from 1: padding is 0.
        numbers = np.indices(size, np.int32)[axis] + 1
        located = transform(Image.fromarray(numbers))[0].numpy()
        places.append(located.max(1 - axis).astype(np.int64) - 1)
    return places[0], places[1]


def _locate_box(
    name: str, edges: list[float], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> Box | None:
    """The box around the pixels of the input whose centre is taken from inside a box."""
    x0, y0, x1, y1 = edges
    inside_x = np.flatnonzero((columns >= 0) & (columns + 0.5 >= x0) & (columns + 0.5 < x1))
    inside_y = np.flatnonzero((rows >= 0) & (rows + 0.5 >= y0) & (rows + 0.5 < y1))
    if not (len(inside_x) and len(inside_y)):
        return None
    return Box(
        name, int(inside_x[0]), int(inside_y[0]), int(inside_x[-1]) + 1, int(inside_y[-1]) + 1
    )
