"""Evaluate one model on one dataset and on its matched control: one cell of the table."""

from __future__ import annotations

import pandas as pd

from densecl import paths
from densecl.artifacts import DatasetPlan, MissingEvaluation, read_json, write_json
from densecl.errors import DataError
from densecl.evaluation.predict import create_empty_predictions
from densecl.evaluation.score import (
    NoKnownClassError,
    build_evaluation,
    restrict_to_known_classes,
    score_dataset,
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
    try:
        if mode == paths.CHAMPION:
            plan = restrict_to_known_classes(plan, config["classes"])
        cell = score_dataset(dataset, plan, model, config["classes"])
    except DataError as error:
        if not plan.optional and not isinstance(error, NoKnownClassError):
            raise
        _write_predictions(
            dataset, mode, seed, create_empty_predictions(), create_empty_predictions()
        )
        record = MissingEvaluation(
            dataset=dataset, mode=mode, seed=seed, reason=" ".join(str(error).split())
        )
        write_json(paths.evaluation_file(dataset, mode, seed), record)
        print(f"{dataset} {mode}-{seed}: no evaluation: {record.reason}")
        return
    _write_predictions(dataset, mode, seed, cell.rows, cell.control_rows)
    whole = build_evaluation(cell, plan, mode, seed, config["classes"])
    write_json(paths.evaluation_file(dataset, mode, seed), whole)
    print(
        f"{dataset} {mode}-{seed}: top-1 {whole.top1:.3f} of {whole.images} images over "
        f"{whole.classes} classes"
    )


def _write_predictions(
    dataset: str, mode: str, seed: int, rows: pd.DataFrame, control: pd.DataFrame
) -> None:
    for path, table in (
        (paths.predictions_file(dataset, mode, seed), rows),
        (paths.control_predictions_file(dataset, mode, seed), control),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path, index=False)
