"""One cell of the table: one model on one set, with its matched control."""

from __future__ import annotations

import pandas as pd

from densecl import paths
from densecl.artifacts import NoEvaluation, SetPlan, read_json, write_json
from densecl.errors import DataError
from densecl.evaluation.predict import no_rows
from densecl.evaluation.score import NoClassKnown, describe, known_to, run
from densecl.network.exported import load_exported
from densecl.runtime.hardware import reuse_freed_memory


def main(set: str, mode: str, seed: int) -> None:
    """Write the cell's predictions, its control's and its figures; where params let it, the reason
    why there are none.

    `champion` stands for a mode. It may have been trained on other classes than there are now:
    labels are found by wnid in the model's own class list, and images of classes that it does not
    know are left out and counted.
    """
    reuse_freed_memory()
    plan = read_json(SetPlan, paths.plan(set))
    model, config = load_exported(paths.model(mode, seed))
    try:
        if mode == paths.CHAMPION:
            plan = known_to(plan, config["classes"])
        cell = run(set, plan, model, config["classes"])
    except DataError as error:
        if not plan.optional and not isinstance(error, NoClassKnown):
            raise
        _write_rows(set, mode, seed, no_rows(), no_rows())
        record = NoEvaluation(
            dataset=set, mode=mode, seed=seed, reason=" ".join(str(error).split())
        )
        write_json(paths.evaluation(set, mode, seed), record)
        print(f"{set} {mode}-{seed}: no evaluation: {record.reason}")
        return
    _write_rows(set, mode, seed, cell.rows, cell.control_rows)
    whole = describe(cell, plan, mode, seed, config["classes"])
    write_json(paths.evaluation(set, mode, seed), whole)
    print(
        f"{set} {mode}-{seed}: top-1 {whole.top1:.3f} of {whole.images} images over "
        f"{whole.classes} classes"
    )


def _write_rows(set: str, mode: str, seed: int, rows: pd.DataFrame, control: pd.DataFrame) -> None:
    for path, table in (
        (paths.predictions(set, mode, seed), rows),
        (paths.control_predictions(set, mode, seed), control),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path, index=False)
