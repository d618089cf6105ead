"""The retraining pipeline: detect changes, train a candidate, judge it, then promote or reject it;
each is a tracked ZenML step.
"""

from typing import Annotated, Any

from zenml import get_step_context, log_metadata, pipeline, step

from densecl import paths
from densecl.artifacts import write_json
from densecl.config.params import load_params
from pipelines.schemas import Champion, GateVerdict, RegisteredVersion, SourceChanges, StageRef
from pipelines.stages import champion_stages
from pipelines.stages.dvc_graph import StageGraph
from pipelines.stages.runs import find_training_run
from pipelines.stages.zenml_steps import add_stages, get_graph, get_revision

SOURCE_STAGES = ("prepare",)  # they and their dependencies run before the changes are detected
Upstream = list[StageRef]


@pipeline(enable_cache=False, dynamic=True)
def retraining(force: bool = False) -> None:
    """Ends after `detect` if nothing changed, unless forced, and before `judge` if the candidate
    is the champion itself.
    """
    references: dict[str, Any] = {}
    sources = get_graph().select_with_upstream(*SOURCE_STAGES)
    add_stages(sources, references)
    changes = detect(force=force, upstream=list(references.values()))
    if not (force or changes.load().has_changes):
        return
    add_stages(
        [name for name in get_graph().stages if name not in sources],
        references,
        after=[references[sources[-1]]],
    )
    champion = lay_out(upstream=list(references.values()))
    if champion.load().is_candidate:
        keep_champion(champion=champion, changes=changes)
        return
    evaluated = list(references.values())
    if champion.load().version is not None:
        evaluated += add_stages(
            list(get_graph(champion_stages.STAGES_FILE).stages),
            {},
            champion_stages.STAGES_FILE,
            after=evaluated,
        )
    verdict = judge(champion=champion, upstream=evaluated)
    register(verdict=verdict, trained=references[_get_training_stage()], changes=changes)


def _get_training_stage() -> str:
    mode, seed = load_params(paths.PARAMS).candidate
    return f"train@{mode}-{seed}"


@step(enable_cache=False)
def detect(force: bool, upstream: Upstream) -> Annotated[SourceChanges, "changes"]:  # noqa: ARG001
    from pipelines.gate.change_text import format_changes
    from pipelines.registry.data_profiles import detect_changes

    changes = detect_changes(load_params(paths.PARAMS))
    write_json(paths.CHANGES, changes)
    # Read anew: the stages before this step ran in other processes.
    trains = StageGraph().must_run(_get_training_stage()) if force else None
    print(format_changes(changes, trains), flush=True)
    log_metadata(
        {
            s.dataset: {"new": s.new, "removed": s.removed, "changed": s.changed}
            for s in changes.sets
        }
    )
    return changes


@step(enable_cache=False)
def lay_out(upstream: Upstream) -> Annotated[Champion, "champion"]:  # noqa: ARG001
    from pipelines.registry.anchor import fetch_references
    from pipelines.registry.registry import is_same_model

    params = load_params(paths.PARAMS)
    settings = params.retraining
    champion = fetch_references(settings.registry, settings.anchor)
    if champion.version is not None:
        candidate, current = (
            paths.model_folder(*model) for model in (params.candidate, (paths.CHAMPION, 0))
        )
        if is_same_model(candidate, current):
            return champion.model_copy(update={"is_candidate": True})
        is_other = champion.anchor is not None and champion.anchor.version != champion.version
        champion_stages.write_champion_stages(paths.REGISTERED if is_other else (paths.CHAMPION,))
    return champion


@step(enable_cache=False)
def keep_champion(
    champion: Champion, changes: SourceChanges
) -> Annotated[RegisteredVersion, "kept"]:
    """The images and params count as judged, and the registry stays as it is; chance and minimums,
    which need no other model, are checked.
    """
    from pipelines.gate import gate
    from pipelines.registry import baseline

    params = load_params(paths.PARAMS)
    kept = RegisteredVersion(
        name=params.retraining.registry,
        version=champion.version or "",
        promoted=False,
        shortfalls=gate.find_shortfalls(params),
    )
    baseline.write_next_baseline(params, changes, kept)
    baseline.resolve_next_baseline()
    log_metadata({"version": kept.version})
    return kept


@step(enable_cache=False)
def judge(champion: Champion, upstream: Upstream) -> Annotated[GateVerdict, "verdict"]:  # noqa: ARG001
    from pipelines.gate import gate
    from pipelines.gate.anchor import hash_validation_images
    from pipelines.gate.trials import describe_trials
    from pipelines.registry import registry

    params = load_params(paths.PARAMS)
    validation, folder = hash_validation_images(), paths.model_folder(*params.candidate)
    candidates = registry.count_candidates(params.retraining.registry, folder, validation)
    verdict = gate.judge_candidate(params, champion, validation=validation, candidates=candidates)
    write_json(paths.GATE, verdict)
    print(verdict.said, describe_trials(verdict), sep="\n", flush=True)
    log_metadata({"promoted": verdict.promoted, "said": verdict.said})
    return verdict


@step(enable_cache=False)
def register(
    verdict: GateVerdict, trained: StageRef, changes: SourceChanges
) -> Annotated[RegisteredVersion, "registered"]:
    """Register the candidate with its card; promote it if the gate accepted it. The baseline is
    proposed before the alias moves and accepted afterwards, so that no kill leaves a champion that
    is compared with its own images.
    """
    from pipelines.registry import baseline, data_profiles, model_card, registry
    from pipelines.registry.finish import finish_promotion

    params = load_params(paths.PARAMS)
    folder = paths.model_folder(verdict.mode, verdict.seed)
    manifests = {
        path: md5 for path, md5 in trained.deps.items() if path.startswith(str(paths.MANIFESTS))
    }
    tags = {
        "dvc_md5": trained.outs[folder.as_posix()],
        "git": get_revision(),
        "mlflow_run": find_training_run(folder) or "",
        "zenml_run": str(get_step_context().pipeline_run.id),
    } | {f"md5 {path}": md5 for path, md5 in manifests.items()}
    registered = registry.register_model(params.retraining.registry, folder, verdict, tags)
    _, written = registry.resolve_version(registered.name, registered.version)
    model_card.attach_card(params, registered, verdict, written)
    data_profiles.attach_profile(params, registered)
    baseline.write_next_baseline(params, changes, registered)
    if verdict.promoted:
        registry.promote_candidate(registered, verdict)
        finish_promotion(registered.name, params.retraining.anchor)
    baseline.resolve_next_baseline()
    log_metadata({"version": registered.version, "promoted": registered.promoted})
    return registered
