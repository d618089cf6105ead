"""Images in Parquet, as Hugging Face's `datasets` writes them: a column of {bytes, path}.

A file of compressed row groups has no random access to one image, so it is copied once, row group
by row group, to a plain tar in the cache of archives; the tar is then read in place.
"""

import io
import re
import tarfile
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from densecl.datasets.storage.filenames import to_printable
from densecl.errors import DataError

MAGIC = b"PAR1"
ROWS_PER_BATCH = 64
MAX_NAME = 100  # characters of the image's own name
UNSAFE = re.compile(r"[^\w.\- ()]", re.ASCII)


def find_image_column(path: Path, schema: pa.Schema) -> str:
    """The only column of {bytes, path}; DataError unless there is one."""
    found = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    ]
    if len(found) != 1:
        columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise DataError(
            f"{to_printable(path)}: found columns {to_printable(columns)[:200]}, expected one "
            "column of images {bytes, path}, as Hugging Face's datasets write them"
        )
    return str(found[0])


def name_row(row: int, own_name: str | None) -> str:
    """Name of the image of a row: the row's number, then the last part of its own name."""
    plain = UNSAFE.sub("_", (own_name or "").rpartition("/")[2])[-MAX_NAME:]
    return f"{row:08d}_{plain}" if "." in plain else f"{row:08d}{plain and '_'}{plain}.jpg"


def copy_to_tar(path: Path, out: BinaryIO) -> None:
    """Write a tar of a file's images; DataError if it does not hold the bytes of all of them."""
    row = 0
    with pq.ParquetFile(path) as file, tarfile.open(fileobj=out, mode="w") as tar:
        column = find_image_column(path, file.schema_arrow)
        for batch in file.iter_batches(ROWS_PER_BATCH, columns=[column]):
            for image in batch.column(0).to_pylist():
                content = image and image["bytes"]
                if content is None:
                    raise DataError(
                        f"{to_printable(path)}: row {row}: found no bytes of an image, expected "
                        "them in the file; export the dataset with its images embedded"
                    )
                member = tarfile.TarInfo(name_row(row, image.get("path")))
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                row += 1
