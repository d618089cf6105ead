"""Compare two experiments: git revisions, DVC experiments, the workspace or report folders."""

import tempfile
from pathlib import Path

from densecl import paths
from densecl.analysis.dvc_lock import read_lock
from densecl.compare.changes import find_changes
from densecl.compare.differences import compare_experiments
from densecl.compare.origins import resolve_origin
from densecl.compare.page import write_comparison
from densecl.compare.read import read_experiment
from densecl.compare.summary import format_verdict
from densecl.errors import DenseclError, RegressionFound


def main(a: str, b: str, fail_if_worse: bool = False, output: str | None = None) -> None:
    """Write compare.html, compare.md and compare.csv to `output` (reports/compare/); with
    `fail_if_worse`, raise RegressionFound if B is worse.
    """
    folder = Path(output) if output else paths.COMPARE_FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise DenseclError(
            f"--output {folder}: {error.strerror}; expected a folder, or a path where one can be "
            "created"
        ) from None
    with tempfile.TemporaryDirectory(prefix="compare-") as scratch:
        origins = [
            resolve_origin(name, Path(scratch) / letter) for letter, name in (("a", a), ("b", b))
        ]
        comparison = compare_experiments(*map(read_experiment, origins))
        change_list = find_changes(
            comparison, (read_lock(origins[0].root), read_lock(origins[1].root))
        )
        print(
            write_comparison(comparison, change_list, folder),
            f"\n{folder / 'compare.html'}",
            sep="\n",
        )
    if fail_if_worse and comparison.select_by_call("worse"):
        raise RegressionFound(format_verdict(comparison))
    if fail_if_worse and (
        missing_cells := [folder for folder in comparison.b.missing if folder in comparison.a.cells]
    ):
        dataset, mode, seed = missing_cells[0]
        more = f", and {len(missing_cells) - 1} more" if len(missing_cells) > 1 else ""
        raise DenseclError(
            f"not judged: A has {dataset}, {mode}, seed {seed}, and B does not "
            f"({comparison.b.missing[missing_cells[0]]}){more}; "
            "a missing cell cannot pass: evaluate it in B, or remove it from the plan of B"
        )
