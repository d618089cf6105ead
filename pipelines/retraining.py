"""New images -> what changed -> a candidate -> the gate -> promoted or kept; each arrow a step that
ZenML tracks.
"""

from __future__ import annotations

from typing import Annotated, Any

from zenml import get_step_context, log_metadata, pipeline, step

from densecl import paths
from densecl.artifacts import write_json
from densecl.config.params import load_params
from pipelines.schemas import Champion, Changes, Registered, StageRef, Verdict
from pipelines.stages import champion_stages as cells
from pipelines.stages.zenml_steps import add, graph, revision

SOURCES = ("prepare",)  # and what they depend on: what is looked at before anything is decided
Upstream = list[StageRef]


@pipeline(enable_cache=False, dynamic=True)
def retraining(force: bool = False) -> None:
    """Ends after `detect` where nothing changed, unless forced."""
    found: dict[str, Any] = {}
    sources = graph().until(*SOURCES)
    add(sources, found)
    seen = detect(upstream=list(found.values()))
    if not (force or seen.load().any):
        return
    add([name for name in graph().stages if name not in sources], found, first=[found[sources[-1]]])
    current = lay_out(upstream=list(found.values()))
    evaluated = list(found.values())
    if current.load().version is not None:
        evaluated += add(list(graph(cells.FILE).stages), {}, cells.FILE, first=evaluated)
    verdict = judge(champion=current, upstream=evaluated)
    register(verdict=verdict, trained=found[_training()], seen=seen)


def _training() -> str:
    mode, seed = load_params(paths.PARAMS).candidate
    return f"train@{mode}-{seed}"


@step(enable_cache=False)
def detect(upstream: Upstream) -> Annotated[Changes, "changes"]:  # noqa: ARG001 - the manifests that it compares
    from pipelines.gate.drift import changes, told

    found = changes(load_params(paths.PARAMS))
    write_json(paths.CHANGES, found)
    print(told(found), flush=True)
    log_metadata(
        {s.dataset: {"new": s.new, "removed": s.removed, "changed": s.changed} for s in found.sets}
    )
    return found


@step(enable_cache=False)
def lay_out(upstream: Upstream) -> Annotated[Champion, "champion"]:  # noqa: ARG001 - trained first: it may take days
    from pipelines.registry import registry

    params = load_params(paths.PARAMS)
    current = registry.champion(params.retraining.registry)
    if current.version is not None:
        registry.lay_out(params.retraining.registry, current)
        cells.define(params)
    return current


@step(enable_cache=False)
def judge(champion: Champion, upstream: Upstream) -> Annotated[Verdict, "verdict"]:  # noqa: ARG001
    from pipelines.gate import gate

    verdict = gate.judge(load_params(paths.PARAMS), champion)
    write_json(paths.GATE, verdict)
    print(verdict.said, flush=True)
    log_metadata({"promoted": verdict.promoted, "said": verdict.said})
    return verdict


@step(enable_cache=False)
def register(
    verdict: Verdict, trained: StageRef, seen: Changes
) -> Annotated[Registered, "registered"]:
    """The candidate as a version with its card; champion where the gate let it pass. From now on
    these images are what a new scan is compared with: proposed before the alias moves, settled
    after it, so that no kill leaves a champion that is judged against itself.
    """
    from pipelines.registry import baseline, model_card, registry
    from pipelines.stages.runs import training_run

    params = load_params(paths.PARAMS)
    folder = paths.model(verdict.mode, verdict.seed)
    manifests = {
        path: md5 for path, md5 in trained.deps.items() if path.startswith(str(paths.MANIFESTS))
    }
    tags = {
        "dvc_md5": trained.outs[folder.as_posix()],
        "git": revision(),
        "mlflow_run": training_run(folder) or "",
        "zenml_run": str(get_step_context().pipeline_run.id),
    } | {f"md5 {path}": md5 for path, md5 in manifests.items()}
    made = registry.register(params.retraining.registry, folder, verdict, tags)
    model_card.attach_card(params, made, verdict, registry.tags(made.name, made.version))
    baseline.propose(params, seen, made)
    if verdict.promoted:
        registry.promote_judged(made, verdict)
        registry.lay_out_card(made.name, made.version)
    baseline.settle()
    log_metadata({"version": made.version, "promoted": made.promoted})
    return made
