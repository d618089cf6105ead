"""`densecl embed`: features of images, for search, clustering or a classifier of one's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from densecl.errors import DenseclError
from densecl.network.exported import load_exported_model
from densecl.network.precision import use_fp32_products
from densecl.network.vit import Backbone, forward_tokens
from densecl.predict.images import ImageBatches, check_output, list_images
from densecl.runtime.atomic_files import open_atomic_file

Batches = Iterator[tuple[list[str], NDArray[np.float32]]]


def main(
    model: Path,
    images: Path,
    features: str,
    output: Path,
    batch_size: int,
    follow_links: bool = False,
) -> None:
    """Write the features of all images, in the order of their names, to a .parquet or .npz."""
    writers = {".parquet": _write_parquet, ".npz": _write_npz}
    if output.suffix not in writers:
        raise DenseclError(f"--output {output}: expected a name that ends in .parquet or .npz")
    network, _ = load_exported_model(model)
    listed = list_images(images, "anywhere" if follow_links else "inside")
    check_output(output, [images, *model.glob("*")])
    batches = ImageBatches(network, listed, batch_size)
    shape = writers[output.suffix](output, _iter_features(network, batches, features))
    print(f"{output}: {features} features {list(shape)}")
    batches.raise_unreadable()


def compute_features(model: Backbone, images: Tensor, kind: str) -> Tensor:
    """After the final norm: cls [B, E], the mean of the patches [B, E], or patches [B, N, E]."""
    with torch.inference_mode(), use_fp32_products():
        tokens = forward_tokens(model, images)
    if kind == "cls":
        return tokens.cls.float()
    return tokens.patches.float() if kind == "patches" else tokens.patches.float().mean(1)


def _iter_features(model: Backbone, batches: ImageBatches, kind: str) -> Batches:
    for names, _, images in batches:
        yield names, compute_features(model, images, kind).cpu().numpy()


def _write_npz(path: Path, batches: Batches) -> tuple[int, ...]:
    """Arrays `image` [n] and `features` [n, ...]."""
    names: list[str] = []
    parts: list[NDArray[np.float32]] = []
    for batch_names, features in batches:
        names += batch_names
        parts.append(features)
    values = np.concatenate(parts)
    with open_atomic_file(path) as file:
        np.savez(file, image=np.array(names), features=values)
    return values.shape


def _write_parquet(path: Path, batches: Batches) -> tuple[int, ...]:
    """Columns `image` and `features` (lists of fp32; patches row by row, their [N, E] in the
    file's metadata as `shape`). Batch by batch: memory does not grow with the images.
    """
    writer: Any = None
    count = 0
    shape: tuple[int, ...] = ()
    with open_atomic_file(path) as file:
        for names, features in batches:
            flat, shape = features.reshape(len(features), -1), features.shape[1:]
            lists = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
            table = pa.table({"image": names, "features": lists}).replace_schema_metadata(
                {"shape": " ".join(map(str, shape))}
            )
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
            count += len(features)
        writer.close()
    return count, *shape
