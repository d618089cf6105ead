"""Images for probes, one row per image with its class, mask and boxes: what `prepare-transfer`
writes and evaluation reads.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from densecl.config.probe_params import TransferParams
from densecl.datasets.storage.decode import HARMLESS_PROBLEMS
from densecl.datasets.storage.manifest import REASON_KEY, check_unchanged, count_problems
from densecl.datasets.storage.skipped_files import describe_skipped
from densecl.errors import DataError
from densecl.runtime.atomic_files import open_atomic_file

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # <entry>/<path>
        ("path", pa.string()),  # below the root
        ("class", pa.string()),  # name of the folder, "" if there is none
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("problem", pa.string()),  # of the image, its mask or its boxes
        ("mask", pa.string()),  # below the folder of masks, "" if there is none
        ("mask_sha256", pa.string()),
        ("boxes", pa.string()),  # JSON: [[class, x0, y0, x1, y1], ...] in pixels, "[]" if none
    ]
)
OBJECT_LEVEL = 128  # of an object mask: at least half of the pixel is the object
SKIPPED_KEY, NOTES_KEY = b"skipped", b"notes"


def get_masks_folder(params: TransferParams) -> Path:
    """Of layout folders its own, else the root."""
    return Path(params.masks or params.root)


def get_boxes_folder(params: TransferParams) -> Path:
    return Path(params.boxes or params.root)


def write_transfer(
    frame: pd.DataFrame, skipped: Mapping[str, int], notes: tuple[str, ...], path: Path
) -> None:
    """Write byte-stable Parquet, atomically; the counts of other files are in its metadata."""
    table = pa.Table.from_pandas(frame[SCHEMA.names], schema=SCHEMA, preserve_index=False)
    metadata = {
        SKIPPED_KEY: json.dumps(dict(skipped), sort_keys=True),
        NOTES_KEY: json.dumps(notes),
    }
    with open_atomic_file(path) as file:
        pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd")


def write_missing_transfer(path: Path, reason: str) -> None:
    """Write the file of a missing entry: no rows, and the reason."""
    table = SCHEMA.empty_table().replace_schema_metadata({REASON_KEY: reason})
    with open_atomic_file(path) as file:
        pq.write_table(table, file)


def read_skipped(path: Path) -> dict[str, int]:
    """Files of an entry that are no rows, by reason."""
    metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    counts: dict[str, int] = json.loads(metadata.get(SKIPPED_KEY, b"{}"))
    return counts


def describe_left_out(name: str, path: Path) -> tuple[str, ...]:
    """How many images of an entry have a problem, and which; () if none has."""
    frame = pq.read_table(path, columns=["problem"]).to_pandas()
    problems = count_problems(frame[~frame["problem"].isin(HARMLESS_PROBLEMS)])
    if not problems:
        return ()
    said = describe_skipped(problems)
    return (f"of the {len(frame):,} images of transfer.{name}, {said} are left out",)


def load_transfer(name: str, params: TransferParams, path: Path) -> pd.DataFrame:
    """The usable rows of an entry, in the order of their paths.

    DataError if the entry is missing, was written by other code, or if an image has changed.
    """
    advice = f"`dvc repro prepare-transfer@{name}` lists its images"
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file; expected the entry transfer.{name}; {advice}"
        ) from None
    if reason := (table.schema.metadata or {}).get(REASON_KEY, b"").decode("utf-8"):
        raise DataError(f"transfer.{name}: {reason}")
    if not table.schema.equals(SCHEMA):
        raise DataError(
            f"{path}: found columns {table.schema.names}, expected {SCHEMA.names}; {advice}"
        )
    frame: pd.DataFrame = table.to_pandas()
    usable = frame[frame["problem"].isin(HARMLESS_PROBLEMS)].reset_index(drop=True)
    if usable.empty:
        raise DataError(
            f"transfer.{name}: none of its {len(frame)} images can be used: the first has the "
            f"problem {frame['problem'].iloc[0]!r}; correct its root"
        )
    check_unchanged(usable, Path(params.root))
    return usable
