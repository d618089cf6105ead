"""`python -m pipelines study FILE`: sweep, seeds with the tuned values, ablations, write-up."""

import io
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from densecl import paths
from densecl.artifacts import write_json, write_text
from densecl.config.cluster_params import EngineName
from densecl.config.params import load_params
from densecl.errors import DenseclError
from pipelines.studies.study.estimate import describe_estimate
from pipelines.studies.study.own_params import replace_params
from pipelines.studies.study.protocol import (
    StudyEnd,
    fix_protocol,
    read_code_state,
)
from pipelines.studies.study.study_file import StudyFile, check_expected, read_study

NAME = r"[a-z0-9][a-z0-9_-]*"


def main(
    file: Path,
    jobs: int | None,
    engine: EngineName | None,
    dry_run: bool,
    images_per_second: float | None,
) -> None:
    """Run what is missing of a study, then write reports/study.html and study.md; `dry_run` prints
    how many trainings it takes, and with a throughput how many hours.

    params.yaml is the study's while it runs, and has its tuned values afterwards.
    """
    study = read_study(file)
    if not re.fullmatch(NAME, file.stem):
        raise DenseclError(f"{file}: its name names the study: use a-z, 0-9, '-' and '_'")
    params = load_params(Path(study.params))
    check_expected(file, study, params)
    print(describe_estimate(study, params, images_per_second))
    if dry_run:
        return
    protocol = fix_protocol(file, study)
    run_study(file.stem, study, jobs, engine)
    from pipelines.studies.study.write_up import write_study

    end = read_code_state()
    write_json(paths.study_end(file.stem), StudyEnd(end=end))
    write_study(file, study, protocol, end)
    shutil.copyfile(paths.STUDY_TEXT, paths.study_folder(file.stem) / paths.STUDY_TEXT.name)
    print(f"{paths.STUDY_PAGE}\n{paths.STUDY_TEXT}")


def run_study(name: str, study: StudyFile, jobs: int | None, engine: EngineName | None) -> None:
    """Each part resumes by itself: the sweep by its trials, the rest by DVC."""
    from pipelines.engines import run
    from pipelines.studies.study.keep import keep_trials, keep_tuning, restore_trials
    from pipelines.studies.sweep import run as sweep

    replace_params(name, Path(study.params).read_text(encoding="utf-8"))
    with count_time(name, "data"):
        run.update_stages(("validate",), jobs, engine)  # the images, drawn ones too, and their list
    restore_trials(name)
    with count_time(name, "sweep"):
        try:
            sweep.main(study.budget, name, jobs, engine, take_over=False, dry_run=False)
        finally:
            keep_trials(name)
    keep_tuning(name)
    tuned = paths.tuned_preset(name).read_text(encoding="utf-8")
    run_comparison(name, tuned, jobs, engine)
    if study.ablations:
        with count_time(name, "ablations"):
            run_ablations(name, study, tuned, jobs, engine)
        run_comparison(name, tuned, jobs, engine)  # the project is left with it; nothing is trained


def run_comparison(name: str, tuned: str, jobs: int | None, engine: EngineName | None) -> None:
    """Bring the comparison with the tuned values up to date, and keep its results."""
    from pipelines.engines import run
    from pipelines.studies.study.keep import keep_results

    replace_params(name, tuned)
    with count_time(name, "comparison"):
        run.main(jobs, engine, dry_run=False)
    keep_results(name, "comparison")
    shutil.copyfile(paths.COMPARISON, paths.study_folder(name) / paths.COMPARISON.name)


def run_ablations(
    name: str, study: StudyFile, tuned: str, jobs: int | None, engine: EngineName | None
) -> None:
    """Run the variants with the first seeds, and keep their table."""
    from pipelines.engines import run
    from pipelines.studies.ablation.factors import plan_ablation
    from pipelines.studies.ablation.page import write_page
    from pipelines.studies.ablation.results import build_ablation_table, read_variant_rows
    from pipelines.studies.study.keep import keep_results

    replace_params(name, limit_seeds(tuned, study.ablation_seeds))
    file = Path(study.ablations or "")
    ablation = plan_ablation(file, paths.PARAMS)
    kept = paths.study_folder(name) / "ablations.csv"
    if not ablation.factors:
        kept.unlink(missing_ok=True)  # of an earlier run
        shutil.rmtree(paths.study_folder(name) / "ablations", ignore_errors=True)
        return  # the write-up says why
    replace_params(name, ablation.text)
    run.main(jobs, engine, dry_run=False)
    comparison, rows = read_variant_rows(ablation.factors)
    table = build_ablation_table(rows).to_csv(index=False)
    for place in (paths.ABLATIONS, kept):
        write_text(place, table)
    write_page(comparison, rows, ablation, file)
    keep_results(name, "ablations")


def limit_seeds(text: str, count: int) -> str:
    """The params with their first seeds only; comments stay."""
    yaml, written = YAML(), io.StringIO()
    yaml.width = 100
    params = yaml.load(text)
    del params["seeds"][count:]
    yaml.dump(params, written)
    return written.getvalue()


@contextmanager
def count_time(name: str, part: str) -> Iterator[None]:
    """Add the wall time of the block to the study's, also if it is interrupted."""
    from pipelines.studies.study.keep import add_seconds

    start = time.monotonic()
    try:
        yield
    finally:
        add_seconds(name, part, time.monotonic() - start)
