"""Two experiments side by side: git revisions, DVC experiments, the workspace or report folders."""

from __future__ import annotations

import tempfile
from pathlib import Path

from densecl import paths
from densecl.analysis.dvc_lock import read_lock
from densecl.compare.changes import changes
from densecl.compare.differences import versus
from densecl.compare.origins import origin
from densecl.compare.page import write_comparison
from densecl.compare.read import read_experiment
from densecl.compare.summary import verdict
from densecl.errors import DenseclError, Worse


def main(a: str, b: str, fail_if_worse: bool = False, output: str | None = None) -> None:
    """Write compare.html, compare.md and compare.csv to `output` (reports/compare/); raise Worse
    where asked and B is.
    """
    place = Path(output) if output else paths.COMPARE
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise DenseclError(
            f"--output {place}: {error.strerror}; expected a folder, or where one can be made"
        ) from None
    with tempfile.TemporaryDirectory(prefix="compare-") as scratch:
        origins = [origin(name, Path(scratch) / letter) for letter, name in (("a", a), ("b", b))]
        found = versus(*map(read_experiment, origins))
        changed = changes(found, (read_lock(origins[0].root), read_lock(origins[1].root)))
        print(write_comparison(found, changed, place), f"\n{place / 'compare.html'}", sep="\n")
    if fail_if_worse and found.called("worse"):
        raise Worse(verdict(found))
    if fail_if_worse and (lost := [place for place in found.b.missing if place in found.a.cells]):
        dataset, mode, seed = lost[0]
        more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise DenseclError(
            f"not judged: A has {dataset}, {mode}, seed {seed} and B has not "
            f"({found.b.missing[lost[0]]}){more}; "
            "what is not there cannot pass: evaluate it in B, or take it out of the plan of B"
        )
