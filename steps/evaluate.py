"""Evaluate one model on one dataset and on its matched control: one cell of the table."""

from densecl import paths
from densecl.artifacts import DatasetPlan, Evaluation, MissingEvaluation, read_json, write_json
from densecl.errors import DataError
from densecl.evaluation.predict import create_empty_predictions
from densecl.evaluation.score import (
    NoKnownClassError,
    evaluate_dataset,
    restrict_to_known_classes,
)
from densecl.network.exported import load_exported_model
from densecl.runtime.hardware import reuse_freed_memory


def main(dataset: str, mode: str, seed: int) -> None:
    """Write the predictions and metrics of the cell; for an optional dataset that fails, the
    reason.

    `champion` takes the place of a mode. It may have been trained on other classes than there are
    now: labels are found by wnid in the model's own class list, and images of classes that it does
    not know are left out and counted.
    """
    reuse_freed_memory()
    plan = read_json(DatasetPlan, paths.plan_file(dataset))
    model, config = load_exported_model(paths.model_folder(mode, seed))
    evaluation: Evaluation | MissingEvaluation
    try:
        if mode == paths.CHAMPION:
            plan = restrict_to_known_classes(plan, config["classes"])
        evaluation, rows, control_rows = evaluate_dataset(
            plan, model, config["classes"], mode, seed
        )
        outcome = (
            f"top-1 {evaluation.top1:.3f} of {evaluation.images} images over {evaluation.classes} "
            "classes"
        )
    except DataError as error:
        if not plan.optional and not isinstance(error, NoKnownClassError):
            raise
        rows, control_rows = create_empty_predictions(), create_empty_predictions()
        reason = " ".join(str(error).split())
        evaluation = MissingEvaluation(dataset=dataset, mode=mode, seed=seed, reason=reason)
        outcome = f"no evaluation: {reason}"
    for path, table in (
        (paths.predictions_file(dataset, mode, seed), rows),
        (paths.control_predictions_file(dataset, mode, seed), control_rows),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path, index=False)
    write_json(paths.evaluation_file(dataset, mode, seed), evaluation)
    print(f"{dataset} {mode}-{seed}: {outcome}")
