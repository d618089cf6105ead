"""The manifest of a dataset: one row per image file; unusable files have a `problem`."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from densecl.datasets.storage.decode import HARMLESS_PROBLEMS
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.image_places import ArchiveImages, locate_images
from densecl.datasets.storage.image_root import get_file_size
from densecl.errors import DataError
from densecl.runtime.atomic_files import open_atomic_file

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("label", pa.int64()),
        ("wnid", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("problem", pa.string()),
        ("dhash", pa.string()),
        ("brightness", pa.float32()),
        ("contrast", pa.float32()),
    ]
)
REASON_KEY = b"absent"
OUTSIDE_PATH = r"^/|(?:^|/)\.\.(?:/|$)"


def write_manifest(frame: pd.DataFrame, path: Path) -> None:
    """Write byte-stable Parquet, atomically."""
    table = pa.Table.from_pandas(frame[SCHEMA.names], schema=SCHEMA, preserve_index=False)
    # Without the metadata of pandas, which names its version.
    with open_atomic_file(path) as file:
        pq.write_table(table.replace_schema_metadata(None), file, compression="zstd")


def write_missing_manifest(path: Path, reason: str) -> None:
    """Write the manifest of a missing dataset: no rows, and the reason; byte-stable, atomic."""
    table = SCHEMA.empty_table().replace_schema_metadata({REASON_KEY: reason})
    with open_atomic_file(path) as file:
        pq.write_table(table, file)


def read_missing_reason(path: Path) -> str:
    """The reason why a dataset is missing; "" if it is not."""
    metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    return metadata.get(REASON_KEY, b"").decode("utf-8")


def read_manifest(path: Path, columns: Collection[str] | None = None) -> pd.DataFrame:
    """Read a manifest, or only some of its columns, `path` among them; DataError names the first
    column that is missing, unknown or of another type.
    """
    hint = "run the stage prepare of this dataset again"
    try:
        schema = pq.read_schema(path)
        wanted = None if columns is None else [name for name in schema.names if name in columns]
        # Decodes the text of the columns too, and gives each column back as it is converted.
        frame: pd.DataFrame = pq.read_table(path, columns=wanted).to_pandas(
            split_blocks=True, self_destruct=True
        )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected a manifest; {hint}") from None
    except Exception as error:  # found by fuzzing: many types, for damaged bytes
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{path}: not readable as Parquet ({reason}); expected a manifest; {hint}"
        ) from None
    types = {field.name: str(field.type) for field in schema}
    for field in SCHEMA:
        found = types.get(field.name, "no such column")
        if found != str(field.type):
            raise DataError(
                f"{path}: column {field.name}: found {found}, expected {field.type}; {hint}"
            )
    if schema.names != SCHEMA.names:
        raise DataError(f"{path}: found columns {schema.names}, expected {SCHEMA.names}; {hint}")
    # An edited manifest must not lead a stage out of the dataset's folder.
    outside = frame["path"][frame["path"].str.contains(OUTSIDE_PATH, na=True)]
    if len(outside):
        raise DataError(
            f"{path}: column path: found {to_printable(outside.iloc[0])}, expected a path below "
            f"the dataset's root; {hint}"
        )
    return frame


def read_classes(path: Path) -> list[str]:
    """[C] sorted classes of a training dataset's manifest, usable or not; the index of a name is
    its label.
    """
    return sorted(read_manifest(path, ("path", "wnid"))["wnid"].unique())


def count_problems(frame: pd.DataFrame) -> dict[str, int]:
    """Files by problem, also those that are used."""
    counts = frame["problem"][frame["problem"] != ""].value_counts()
    return {str(problem): int(count) for problem, count in counts.items()}


def select_usable(frame: pd.DataFrame, excluded: Iterable[str] = ()) -> pd.DataFrame:
    """Rows for training and evaluation: no fatal problem, and image_id not in `excluded`."""
    usable = frame["problem"].isin(HARMLESS_PROBLEMS) & ~frame["image_id"].isin(list(excluded))
    return frame[usable].reset_index(drop=True)


def check_unchanged(frame: pd.DataFrame, root: Path) -> None:
    """Raise DataError for the first file whose size differs from the manifest's.

    DVC finds a change that keeps the size, by the content hash of `tracked_by`.
    """
    with suppress(OSError):  # of which the loop finds the file
        images = locate_images(root, frame["path"])
        if isinstance(images, ArchiveImages):
            frame = frame[images.sizes != frame["bytes"].to_numpy()]
    for path, expected in zip(frame["path"], frame["bytes"], strict=True):
        try:
            found = f"{get_file_size(root / path)} bytes"
        except OSError as error:
            found = (error.strerror or "unreadable").lower()
        if found != f"{expected} bytes":
            raise DataError(
                f"{to_printable(root / path)}: found {found}, expected {expected} bytes: it "
                f"changed after its manifest was written; run the stage prepare of this dataset "
                f"again (dvc repro)"
            )
