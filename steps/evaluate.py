"""Evaluate one model on all datasets and their matched controls, and run its probes."""

from densecl import paths
from densecl.artifacts import (
    EvaluatePlan,
    Evaluation,
    ExecutionPlan,
    ProbeEvaluation,
    read_json,
    write_json,
)
from densecl.config.probe_params import ProbesParams
from densecl.evaluation.cell_cache import CellCache
from densecl.evaluation.probing.context import ProbeContext
from densecl.evaluation.probing.run import run_probe
from densecl.evaluation.score import Cell, ModelEvaluator
from densecl.network.exported import load_exported_model
from densecl.runtime.hardware import reuse_freed_memory
from densecl.runtime.progress import write_progress


def main(mode: str, seed: int) -> None:
    """Write the predictions and metrics of every dataset and every probe; `champion` and `anchor`
    count as modes, and have no probes.
    """
    reuse_freed_memory()
    model, config = load_exported_model(paths.model_folder(mode, seed))
    plan, cache = open_plan()
    evaluator = ModelEvaluator(model, config["classes"], mode, seed, plan, cache)
    if mode in paths.REGISTERED:
        plan = plan.model_copy(update={"probes": ProbesParams()})
    write_cells(evaluator, plan, cache)


def open_plan() -> tuple[EvaluatePlan, CellCache]:
    plan = read_json(EvaluatePlan, paths.plan_file("evaluate"))
    return plan, CellCache(read_json(ExecutionPlan, paths.plan_file("execution")).cell_cache)


def write_cells(evaluator: ModelEvaluator, plan: EvaluatePlan, cache: CellCache) -> None:
    """Write all datasets and probes of the plan. What the cell cache has is not computed again, so
    a run that was stopped continues there.
    """
    model_name = paths.get_model_name(evaluator.mode, evaluator.seed)
    cached, probes = 0, plan.probes.names
    cells = len(plan.datasets) + len(probes)
    for done, dataset in enumerate(plan.datasets):
        write_progress(done, cells, dataset.name)
        cell = evaluator.evaluate(dataset.name)
        write_cell(cell)
        cached += cell.cached
        print(f"{dataset.name} {model_name}: {describe_cell(cell)}", flush=True)
    context = ProbeContext(evaluator, plan)
    for done, probe in enumerate(probes, len(plan.datasets)):
        write_progress(done, cells, probe)
        evaluation, was_cached = run_probe(probe, context, cache)
        cached += was_cached
        print(f"{probe} {model_name}: {describe_probe(evaluation, was_cached)}", flush=True)
    print(
        f"{model_name}: {cached} of {cells} from the cell cache, "
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


def describe_probe(evaluation: ProbeEvaluation, cached: bool) -> str:
    if evaluation.reason:
        return f"not measured: {evaluation.reason}"
    values = [f"{name} {measure.value:.3f}" for name, measure in evaluation.measures.items()]
    shown = ", ".join(values[:3]) + (f" and {len(values) - 3} more" if len(values) > 3 else "")
    return f"{shown}{', from the cell cache' if cached else ''}"


def describe_cell(cell: Cell) -> str:
    evaluation = cell.evaluation
    if not isinstance(evaluation, Evaluation):
        return f"no evaluation: {evaluation.reason}"
    return (
        f"top-1 {evaluation.top1:.3f} of {evaluation.images} images over {evaluation.classes} "
        f"classes{', from the cell cache' if cell.cached else ''}"
    )
