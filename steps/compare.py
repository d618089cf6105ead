"""Compare two experiments: git revisions, DVC experiments, the workspace or report folders."""

import tempfile
from pathlib import Path

from densecl import paths
from densecl.analysis.dvc_lock import read_lock
from densecl.compare.changes import find_changes
from densecl.compare.criterion import judge_comparison
from densecl.compare.differences import compare_experiments
from densecl.compare.origins import resolve_origin
from densecl.compare.page import write_comparison
from densecl.compare.read import read_experiment
from densecl.errors import DenseclError


def main(
    a: str,
    b: str,
    fail_if_worse: bool = False,
    margin: float | None = None,
    output: str | None = None,
) -> None:
    """Write compare.html, compare.md and compare.csv to `output` (reports/compare/); with
    `fail_if_worse`, raise RegressionFound if B does not hold the criterion of
    `judge_comparison`, and DenseclError if the two cannot be compared.
    """
    if margin is not None and not (fail_if_worse and 0 <= margin < 1):
        raise DenseclError(
            f"--margin {margin:g}: expected a fraction of top-1 in [0, 1), such as 0.01, beside "
            "--fail-if-worse"
        )
    folder = _create_folder(output)
    with tempfile.TemporaryDirectory(prefix="compare-") as scratch:
        origins = [
            resolve_origin(name, Path(scratch) / letter) for letter, name in (("a", a), ("b", b))
        ]
        comparison = compare_experiments(*map(read_experiment, origins))
        change_list = find_changes(
            comparison, (read_lock(origins[0].root), read_lock(origins[1].root))
        )
        judgement = judge_comparison(comparison, margin) if fail_if_worse else None
        said = judgement.text if judgement else ""
        print(
            write_comparison(comparison, change_list, folder, said),
            f"\n{folder / 'compare.html'}",
            sep="\n",
        )
    if judgement and judgement.error:
        raise judgement.error(judgement.text)


def _create_folder(output: str | None) -> Path:
    folder = Path(output) if output else paths.COMPARE_FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise DenseclError(
            f"--output {folder}: {error.strerror}; expected a folder, or a path where one can be "
            "created"
        ) from None
    return folder
