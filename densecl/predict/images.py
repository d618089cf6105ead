"""The images that a user names, read safely: one file, or all of a folder or an archive."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from densecl.artifacts import Preprocessing
from densecl.datasets.storage.archives import detect_format
from densecl.datasets.storage.decode import decode_image
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.folder_root import FollowLinks
from densecl.datasets.storage.image_root import ImageRoot, open_image_root
from densecl.errors import DataError, DenseclError
from densecl.network.preprocessing import (
    build_evaluation_transform,
    normalise_images,
    resolve_preprocessing,
)
from densecl.network.vit import Backbone
from densecl.pages.formatting import format_count
from densecl.runtime.hardware import count_workers, get_device


def list_images(path: Path, follow_links: FollowLinks = "inside") -> list[tuple[str, Path]]:
    """Name and path of each image, sorted: names are relative to a folder or archive. DataError if
    there is none, for what is neither file nor folder, and, unless links are followed anywhere, for
    a link that leaves the folder.
    """
    if path.exists() and not (path.is_dir() or path.is_file()):  # reading a pipe would wait
        raise DataError(f"{to_printable(path)}: expected an image, a folder or an archive")
    if not (path.is_dir() or detect_format(path)):
        return [(path.name, path)]  # also inside an archive; decoding says what is wrong
    root = open_image_root(path, follow_links=follow_links)
    images = [(name, path / name) for name in _iter_names(root, "")]
    if not images:
        raise DataError(
            f"{to_printable(path)}: found no image; expected .jpg, .png, .webp, ... files"
        )
    return sorted(images)


def check_output(output: Path, inputs: Iterable[Path]) -> None:
    """DenseclError if a file that is to be written is one that is read."""
    if not output.name:
        raise DenseclError(f"--output: found '{output}', expected the name of a file")
    # Not Path.resolve, which raises at links in a circle.
    if os.path.realpath(output) in {os.path.realpath(path) for path in inputs}:
        raise DenseclError(
            f"--output {to_printable(output)}: found the name of a file that this command reads, "
            "expected another; it would be overwritten"
        )


def _iter_names(root: ImageRoot, folder: str) -> Iterator[str]:
    prefix = f"{folder}/" if folder else ""
    yield from (f"{prefix}{name}" for name in root.read_folder(folder).images)
    for subfolder in root.list_folders(folder):
        yield from _iter_names(root, f"{prefix}{subfolder}")


class _Images(Dataset[tuple[Tensor, int, str]]):
    """uint8 [3, H, W], the row number, and why the image cannot be read ("": it can)."""

    def __init__(
        self,
        paths: list[Path],
        transform: Callable[[Image.Image], Tensor],
        settings: Preprocessing,
    ) -> None:
        self.paths, self.transform, self.settings = paths, transform, settings

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int, str]:
        try:
            return self.transform(decode_image(self.paths[row], self.settings.exif)), row, ""
        except DataError as error:
            empty = torch.zeros(self.settings.input_size, dtype=torch.uint8)
            return empty, row, str(error).partition("; ")[0]


@dataclass
class ImageBatches:
    """Iterate over (names, uint8 images [B, 3, H, W], normalised images on the model's device);
    images that cannot be read are left out, named on stderr and counted. DataError at the end if
    none can be read.
    """

    model: Backbone
    images: list[tuple[str, Path]]
    batch_size: int
    unreadable: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[tuple[list[str], Tensor, Tensor]]:
        settings, device = resolve_preprocessing(self.model), get_device()
        self.model.to(device).eval()
        paths = [path for _, path in self.images]
        transform = build_evaluation_transform(settings, normalize=False)
        loader: DataLoader[Any] = DataLoader(
            _Images(paths, transform, settings),
            batch_size=self.batch_size,
            num_workers=count_workers() if len(paths) > self.batch_size else 0,
        )
        for pixels, rows, problems in loader:
            readable = [i for i, problem in enumerate(problems) if not problem]
            for problem in filter(None, problems):
                print(f"warning: {problem}", file=sys.stderr)
                self.unreadable += 1
            if readable:
                names = [self.images[int(rows[i])][0] for i in readable]
                kept = pixels[readable]
                yield names, kept, normalise_images(kept.to(device), settings)
        if self.unreadable == len(self.images):
            raise DataError(
                f"none of {format_count(len(self.images), 'image')} can be read (named above)"
            )

    def raise_unreadable(self) -> None:
        """At the end: DataError if some image was left out."""
        if self.unreadable:
            raise DataError(
                f"{self.unreadable:,} of {len(self.images):,} images cannot be read (named above); "
                "the others are done"
            )
