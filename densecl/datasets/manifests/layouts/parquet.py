"""Layout parquet: images with a column of labels, as Hugging Face's `datasets` writes them."""

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from densecl.config.data_params import DatasetParams
from densecl.datasets.manifests.layouts.labelled_files import (
    RECODED,
    LabelledFiles,
    Sample,
    name_classes,
    use_names,
)
from densecl.datasets.manifests.layouts.shard_listings import iter_listings
from densecl.datasets.manifests.layouts.shards import find_shards
from densecl.datasets.storage.archives import retry_staged
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.json_text import load_json
from densecl.datasets.storage.parquet_images import find_image_column, name_row
from densecl.errors import DataError

LABEL_COLUMNS = ("label", "labels", "cls", "class", "fine_label")


def list_parquet(source: DatasetParams) -> LabelledFiles:
    """Every image of the files with its class, from the columns of labels and names alone."""
    root = Path(source.root)
    files, skipped = find_shards(source, ".parquet")
    samples, named, names = list[Sample](), list[tuple[Sample, str]](), None
    for path, (labels, own_names, names_here) in iter_listings(files, read_rows):
        prefix = "" if path == root else f"{path.relative_to(root).as_posix()}/"
        if names is not None and names_here not in (None, names):
            raise DataError(
                f"{to_printable(path)}: found other names of classes than in the files before it"
            )
        names = names_here or names
        for row, (label, own) in enumerate(zip(labels, own_names, strict=True)):
            place = prefix + name_row(row, own)
            if isinstance(label, str):
                named.append((Sample(place, -1, own or "", own or ""), label))
            else:
                samples.append(Sample(place, label, own or "", own or ""))
    if named and samples:
        raise DataError(
            f"{to_printable(root)}: found labels that are names "
            f"({to_printable(named[0][0].path)}) and labels that are integers "
            f"({to_printable(samples[0].path)}), expected one kind; read them as two datasets, or "
            "set split"
        )
    if named:
        images, notes = use_names(root, named, source.class_list)
        known_as = tuple(sample.own_name for sample, _ in named)
        return LabelledFiles(images, skipped, (*notes, RECODED), known_as)
    images, notes = name_classes(root, samples, names, source.class_list)
    known_as = tuple(sample.own_name for sample in samples)
    return LabelledFiles(images, skipped, (*notes, RECODED), known_as)


def read_rows(path: Path) -> tuple[list[int | str], list[str | None], list[str] | None]:
    """Label and own name of each row, and the names of the classes where the file has them;
    DataError for a label that is neither an integer nor text.
    """
    try:
        labels, own_names, names = retry_staged(path, partial(_read_columns, path))
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{to_printable(path)}: not readable as Parquet ({to_printable(error)[:120]}); "
            "download it again"
        ) from None
    for row, label in enumerate(labels):
        if not isinstance(label, int | str):
            raise DataError(
                f"{to_printable(path)}: row {row}: found label {label}, expected an integer or "
                "the name of a class"
            )
    return labels, own_names, names


def _read_columns(path: Path) -> tuple[list[Any], list[str | None], list[str] | None]:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        image = find_image_column(path, schema)
        column = next((name for name in LABEL_COLUMNS if name in schema.names), None)
        if column is None:
            raise DataError(
                f"{to_printable(path)}: found columns {to_printable(', '.join(schema.names))}, "
                f"expected one of {', '.join(LABEL_COLUMNS)}"
            )
        has_names = schema.field(image).type.get_field_index("path") >= 0
        table = file.read([column, *([f"{image}.path"] if has_names else [])])
        labels = table.column(column).to_pylist()
        own_names: list[str | None] = [None] * len(labels)
        if has_names:
            own_names = [row and row["path"] for row in table.column(image).to_pylist()]
        return labels, own_names, _read_names(schema.metadata or {}, column)


def _read_names(metadata: dict[bytes, bytes], column: str) -> list[str] | None:
    """The names of ClassLabel, from the description that `datasets` writes beside the schema."""
    try:
        features = load_json(metadata[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names]
