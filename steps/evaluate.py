"""Evaluate one model on all datasets and their matched controls."""

from densecl import paths
from densecl.artifacts import EvaluatePlan, Evaluation, ExecutionPlan, read_json, write_json
from densecl.evaluation.cell_cache import CellCache
from densecl.evaluation.score import Cell, ModelEvaluator
from densecl.network.exported import load_exported_model
from densecl.runtime.hardware import reuse_freed_memory
from densecl.runtime.progress import write_progress


def main(mode: str, seed: int) -> None:
    """Write the predictions and metrics of every dataset; `champion` and `anchor` count as modes.

    What the cell cache has is not computed again, so a run that was stopped continues there.
    """
    reuse_freed_memory()
    plan = read_json(EvaluatePlan, paths.plan_file("evaluate"))
    cache = CellCache(read_json(ExecutionPlan, paths.plan_file("execution")).cell_cache)
    model, config = load_exported_model(paths.model_folder(mode, seed))
    evaluator = ModelEvaluator(model, config["classes"], mode, seed, plan, cache)
    cached = 0
    for done, dataset in enumerate(plan.datasets):
        write_progress(done, len(plan.datasets), dataset.name)
        cell = evaluator.evaluate(dataset.name)
        write_cell(cell)
        cached += cell.cached
        print(f"{dataset.name} {mode}-{seed}: {describe_cell(cell)}", flush=True)
    print(
        f"{mode}-{seed}: {cached} of {len(plan.datasets)} from the cell cache, "
        f"{evaluator.predictor.images_run} images run"
    )


def write_cell(cell: Cell) -> None:
    evaluation = cell.evaluation
    name = (evaluation.dataset, evaluation.mode, evaluation.seed)
    for path, table in (
        (paths.predictions_file(*name), cell.rows),
        (paths.control_predictions_file(*name), cell.control_rows),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path, index=False)
    write_json(paths.evaluation_file(*name), evaluation)


def describe_cell(cell: Cell) -> str:
    evaluation = cell.evaluation
    if not isinstance(evaluation, Evaluation):
        return f"no evaluation: {evaluation.reason}"
    return (
        f"top-1 {evaluation.top1:.3f} of {evaluation.images} images over {evaluation.classes} "
        f"classes{', from the cell cache' if cell.cached else ''}"
    )
