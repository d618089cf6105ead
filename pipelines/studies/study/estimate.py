"""How many trainings a study takes, and how many hours at a measured throughput."""

from pathlib import Path

from densecl import paths
from densecl.config.params import MODES, TRAIN_SET, Params
from pipelines.studies.ablation.factors import plan_ablation
from pipelines.studies.study.study_file import StudyFile


def describe_estimate(study: StudyFile, params: Params, images_per_second: float | None) -> str:
    """One line per part, and the sum. Times of evaluation, probes and cost are not in it."""
    images = study.images or params.datasets[TRAIN_SET].images or _count_listed()
    lines, total = [], 0.0
    for part, (trainings, epochs) in count_epochs(study, params).items():
        seen = epochs * images
        total += seen
        lines.append(
            f"{part}: {trainings} trainings, {epochs:g} epochs in all"
            + _format_hours(seen, images_per_second)
        )
    if not images:
        return "\n".join([*lines, "hours: not known before the training images are listed"])
    lines.append(
        f"in all: {total:,.0f} images in two views" + _format_hours(total, images_per_second)
    )
    return "\n".join(lines)


def count_epochs(study: StudyFile, params: Params) -> dict[str, tuple[int, float]]:
    """Trainings, and their epochs over all training images, by part of the study."""
    modes = [mode for mode in MODES if mode in params.modes]
    trials = study.budget * len(modes)
    length = params.sweep.epochs or params.train.epochs
    models = len(params.seeds) * len(modes)
    counts = {
        "sweep": (trials, trials * length * (1 - params.sweep.held_back)),
        "comparison": (models, float(models * params.train.epochs)),
    }
    if study.ablations:
        ablation = plan_ablation(Path(study.ablations), Path(study.params))
        variants = [name for group in ablation.factors.values() for name in group]
        seeds = min(study.ablation_seeds, len(params.seeds))
        runs = len(variants) * seeds
        counts["ablations"] = (runs, float(runs * params.train.epochs))
    return counts


def _count_listed() -> int:
    """Images of the training manifest; 0 before it is written."""
    import pyarrow.parquet as pq

    path = paths.manifest_file(TRAIN_SET)
    return pq.read_metadata(path).num_rows if path.exists() else 0


def _format_hours(seen: float, images_per_second: float | None) -> str:
    return f", {seen / images_per_second / 3600:,.1f} h" if seen and images_per_second else ""
