"""`python -m pipelines ablate`: one-factor variants in the graph, and their page."""

import sys
from pathlib import Path

from densecl import paths
from densecl.artifacts import write_text
from densecl.config.cluster_params import EngineName
from densecl.errors import DenseclError
from pipelines.studies.ablation.factors import Ablation, plan_ablation


def main(file: Path, jobs: int | None, engine: EngineName | None, dry_run: bool) -> None:
    """Add the variants of `file` to params.yaml, bring the whole graph up to date, and write the
    page and the table; `dry_run` only prints what would be added.
    """
    ablation = plan_ablation(file, paths.PARAMS)
    print(describe_ablation(ablation))
    if not ablation.factors:
        raise DenseclError(
            f"{file}: found no variant that can run and differs from its base; add some"
        )
    if dry_run:
        return
    if ablation.text != paths.PARAMS.read_text(encoding="utf-8"):
        write_text(paths.PARAMS, ablation.text)
        print(f"{paths.PARAMS}: has these variants now (`git diff {paths.PARAMS}`)")
    sys.stdout.flush()
    from pipelines.engines import run
    from pipelines.studies.ablation.page import write_page
    from pipelines.studies.ablation.results import build_ablation_table, read_variant_rows

    run.main(jobs, engine, dry_run=False)
    comparison, rows = read_variant_rows(ablation.factors)
    write_text(paths.ABLATIONS, build_ablation_table(rows).to_csv(index=False))
    write_page(comparison, rows, ablation, file)
    print(paths.ABLATIONS_PAGE)


def describe_ablation(ablation: Ablation) -> str:
    """What runs, by factor, and what does not, with the reason."""
    lines = [f"{factor}: {', '.join(names)}" for factor, names in ablation.factors.items()]
    return "\n".join([*lines, *ablation.list_absent()])
