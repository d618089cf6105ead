"""What a probe leaves: numbers, and a value per image from which each of them is the mean."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from densecl.artifacts import ProbeMeasure, ProbeSummary

IMAGE_COLUMNS = ("image_id", "source")
SUMMARY_KEY = b"densecl.probe"


@dataclass(frozen=True)
class ProbeResult:
    """Rows of images, and measures by name.

    `rows`: `image_id`, `source` (images of one source are one photograph: sources.py), and a
    float64 column per measure. A measure's value is the mean of its column over the images that
    have one (not NaN). Where it is no mean of images, such as a ratio of sums, the column holds
    linearised values: the value plus n times the influence of the image, so that both mean and
    variance are right (Cochran 1977, section 6.5).
    """

    rows: pd.DataFrame
    measures: Mapping[str, ProbeMeasure]
    missing: Mapping[str, str] = field(default_factory=dict)  # measure -> why it has no value
    notes: tuple[str, ...] = ()  # on what was measured, for beside the numbers
    # Maps to look at, by name; kept as .safetensors beside the rows.
    pictures: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


def build_measure(
    rows: pd.DataFrame,
    name: str,
    *,
    chance: float | None = None,
    higher_is_better: bool = True,
    curve: str = "",
    strength: float | None = None,
    note: str = "",
) -> ProbeMeasure:
    """The measure of a column of `rows`."""
    values = rows[name].dropna()
    return ProbeMeasure(
        value=float(values.mean()),
        images=len(values),
        chance=chance,
        higher_is_better=higher_is_better,
        curve=curve,
        strength=strength,
        note=note,
    )


def linearise_ratio(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values [n] whose mean is the ratio of the sums of [n] and [n], and whose variance is that of
    the ratio by the delta method (Cochran 1977, section 6.5).
    """
    ratio = numerators.sum() / denominators.sum()
    return np.asarray(ratio + (numerators - ratio * denominators) / denominators.mean())


def pack_result(result: ProbeResult) -> bytes:
    """A result without its pictures as one Parquet file."""
    summary = ProbeSummary(
        measures=dict(result.measures), missing=dict(result.missing), notes=result.notes
    )
    table = pa.Table.from_pandas(result.rows, preserve_index=False)
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), SUMMARY_KEY: summary.model_dump_json().encode()}
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def unpack_result(content: bytes) -> ProbeResult:
    """The result of `pack_result`."""
    table = pq.read_table(io.BytesIO(content))
    summary = ProbeSummary.model_validate_json((table.schema.metadata or {})[SUMMARY_KEY])
    return ProbeResult(table.to_pandas(), summary.measures, summary.missing, summary.notes)
