"""The table of docs/performance.md between its markers, and the same as JSON."""

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.gpu.budget import PartResult
from benchmarks.measure import TABLE_HEADER, format_rows
from densecl.errors import DenseclError
from densecl.runtime.atomic_files import open_atomic_file
from densecl.runtime.hardware import get_device, get_device_name

BEGIN, END = "<!-- gpu: begin, written by `python -m benchmarks.gpu` -->", "<!-- gpu: end -->"


def describe_machine() -> str:
    """Device and versions, in one line."""
    cuda = f", CUDA {torch.version.cuda}" if torch.version.cuda else ""
    return (
        f"{get_device_name(get_device())}; Python {platform.python_version()}, "
        f"torch {torch.__version__}{cuda}, timm {version('timm')}"
    )


def format_table(results: Sequence[PartResult]) -> str:
    """Machine, table, time per part, and one line for what is missing from the table."""
    spent = ", ".join(f"{r.name} {r.seconds:.0f} of {r.budget:.0f}" for r in results)
    total = sum(result.seconds for result in results)
    missing = [line for result in results for line in (*result.cut, *result.failed)]
    lines = [
        f"Machine: {describe_machine()}. {total:.0f} s in all; seconds of each part and its "
        f"budget: {spent}.",
        "",
        TABLE_HEADER + format_rows(row for result in results for row in result.rows),
        *(["", *(f"- {line}" for line in missing)] if missing else []),
    ]
    return "\n".join(lines)


def write_page(page: Path, results: Sequence[PartResult]) -> None:
    """Replace what is between the markers; DenseclError without them."""
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DenseclError(
            f"{page}: expected the lines {BEGIN!r} and {END!r} once each, in this order; restore "
            f"them, or give another --page"
        )
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    with open_atomic_file(page) as file:
        file.write(f"{before}{BEGIN}\n\n{format_table(results)}\n\n{END}{after}".encode())


def write_json_results(path: Path, results: Sequence[PartResult]) -> None:
    """Machine and parts; each row with its cells and the numbers that they were computed from."""
    parts = [
        result._asdict() | {"rows": [row._asdict() | {"raw": dict(row.raw)} for row in result.rows]}
        for result in results
    ]
    with open_atomic_file(path) as file:
        content = {"machine": describe_machine(), "parts": parts}
        file.write((json.dumps(content, indent=1) + "\n").encode())
