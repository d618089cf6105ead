"""Run a pipeline from lock to record: `python -m pipelines comparison | retraining | replay`."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from densecl import paths
from densecl.artifacts import read_json
from densecl.config.cluster_params import EngineName
from densecl.config.params import Params, load_params
from densecl.errors import DenseclError
from densecl.runtime.locks import hold_lock
from pipelines.engines.run import main as run_stages, open_executor
from pipelines.outcome import csv_log
from pipelines.runtime import error_translation, zenml_env
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.schemas import GateVerdict, Outcome, RegisteredVersion, RetrainingRecord

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse


def run_comparison(jobs: int | None, engine: EngineName | None, dry_run: bool) -> None:
    """Run the whole comparison as a tracked pipeline; options as of `engines.run.main`."""
    if dry_run:
        run_stages(jobs, engine, dry_run)
        return
    with _prepare_run(), _use_engine(jobs, engine):
        from pipelines.comparison import comparison

        comparison()
    print(paths.REPORT_TABLE.read_text(encoding="utf-8"))


def run_retraining(dry_run: bool, force: bool, jobs: int | None, engine: EngineName | None) -> None:
    """Train and judge a candidate if something changed; `dry_run` only prints the changes, and on a
    cluster the jobs that would be submitted.
    """
    with _prepare_run(tracked=not dry_run):
        if dry_run:
            _print_changes()
            if (engine or load_params(paths.PARAMS).cluster.engine) != "local":
                from pipelines.engines.status import print_plan
                from pipelines.stages.dvc_graph import StageGraph

                print_plan(StageGraph(), engine)
            return
        with _use_engine(jobs, engine):
            from pipelines.retraining import retraining

            _record_run(lambda: retraining(force=force))


def resume_run(jobs: int | None, engine: EngineName | None) -> None:
    """Resume the newest run; DenseclError if it was not interrupted."""
    with _prepare_run(), _use_engine(jobs, engine):
        from zenml.enums import ExecutionStatus

        from pipelines.stages import zenml_steps
        from pipelines.stages.runs import (
            get_latest_run,
            get_pipeline_name,
            list_changed_stages,
            list_finished_stages,
        )

        run = get_latest_run()
        if run is None or run.status == ExecutionStatus.COMPLETED:
            reason = f"the newest, {run.name}, is complete" if run else "there is no run"
            raise DenseclError(
                f"nothing to go on with: {reason}; `python -m pipelines retraining` starts one"
            )
        if changed := list_changed_stages(run):
            raise DenseclError(
                f"{run.name}: {', '.join(changed)} changed since, in params, code or files; "
                f"replay would mix old with new: "
                f"`python -m pipelines {get_pipeline_name(run)}` begins again, and does only what "
                f"changed"
            )
        print(f"resuming {run.name}", flush=True)
        zenml_steps.FINISHED.update(list_finished_stages(run))
        if get_pipeline_name(run) == "comparison":
            from pipelines.comparison import comparison

            comparison.replay(pipeline_run=run.id, skip_successful_steps=True)
        else:
            from pipelines.retraining import retraining

            _record_run(
                lambda: retraining.replay(
                    pipeline_run=run.id,
                    skip_successful_steps=True,
                    # ZenML itself would take the defaults of what has one.
                    input_overrides=dict(run.config.parameters or {}),
                )
            )


@contextmanager
def _prepare_run(tracked: bool = True) -> Iterator[None]:
    """Lock the project, forward signals to the running stage, and check params first, since ZenML
    takes seconds to import.
    """
    load_params(paths.PARAMS)
    with error_translation.translate_errors(), hold_lock(paths.RETRAINING_LOCK):
        zenml_env.configure_environment()
        SIGNAL_FORWARDER.install_handlers()
        if paths.BASELINE_NEXT.exists():  # importing the registry takes seconds
            from pipelines.registry import baseline

            baseline.resolve_next_baseline()
        if tracked:
            from pipelines.stages.runs import reap_dead_runs

            for name in reap_dead_runs():
                print(
                    f"{name}: was left running by a process that is gone; marked as failed",
                    flush=True,
                )
        yield


@contextmanager
def _use_engine(jobs: int | None, engine: EngineName | None) -> Iterator[None]:
    """Run the stages of ZenML's steps in processes of this machine, or in jobs of a cluster."""
    from pipelines.stages import zenml_steps

    with open_executor(jobs, engine) as executor, zenml_steps.use_executor(executor):
        yield


def _print_changes() -> None:
    from pipelines.gate.change_text import format_changes
    from pipelines.registry.data_profiles import detect_changes
    from pipelines.stages.dvc_graph import StageGraph

    graph = StageGraph()
    for name in graph.select_with_upstream("prepare"):
        graph.update_stage(name, partial(print, f"{name} ...", flush=True))
    print(format_changes(detect_changes(load_params(paths.PARAMS))))


def _record_run(run_pipeline: "Callable[[], PipelineRunResponse]") -> None:
    """Run a pipeline, then write its outcome to reports/retraining.csv and send notifications; also
    if it fails, and raise the failure again.
    """
    from pipelines.registry import registry
    from pipelines.stages.runs import get_latest_run

    started_at, start_clock = datetime.now().astimezone(), time.monotonic()
    params = load_params(paths.PARAMS)
    _finish_killed_promotion(params)
    failure: BaseException | None = None
    registered: RegisteredVersion | None = None
    verdict: GateVerdict | None = None
    outcome: Outcome = "unchanged"
    summary, is_notified = "nothing changed since the last judged candidate", True
    try:
        steps = run_pipeline().steps
        if "register" in steps:
            registered = steps["register"].outputs["registered"][0].load()
            verdict = steps["judge"].outputs["verdict"][0].load()
            outcome = "promoted" if registered.promoted else "rejected"
            summary = verdict.said
        elif "keep_champion" in steps:
            kept = steps["keep_champion"].outputs["kept"][0].load()
            summary = f"the candidate is the champion, version {kept.version}, byte for byte"
            is_notified = bool(kept.shortfalls)
            if kept.shortfalls:
                summary += f"; it stays champion, but {'; '.join(kept.shortfalls)}"
    except Exception as error:
        failure = error_translation.translate_error(error) or error
        outcome, summary = "failed", " ".join(str(failure).split()) or type(failure).__name__
    champion, unknown = None, ""
    try:
        champion = registry.get_champion(params.retraining.registry).version
    except Exception as error:  # the outcome is recorded even if the registry is down
        unknown = f"; the champion is unknown: {' '.join(str(error).split())}"
    if outcome == "unchanged" and unknown:
        summary += unknown
    elif outcome == "unchanged" and champion is None:
        summary += (
            f"; no champion is found in {params.retraining.registry}: "
            f"`retraining --force` judges a candidate all the same"
        )
    run = get_latest_run()
    record = RetrainingRecord(
        started=started_at.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - start_clock, 1),
        outcome=outcome,
        said=summary,
        version=registered.version if registered else None,
        champion=champion,
        zenml_run=str(run.id) if run else None,
    )
    if verdict is not None:
        from pipelines.outcome.git_snapshot import save_snapshot

        record = record.model_copy(update={"git": save_snapshot(params, record, verdict)})
    csv_log.append_record(paths.RETRAINING_LOG, record)
    if is_notified:
        _report_outcome(params, record, verdict)
    if failure is not None:
        raise failure
    champion = "no champion yet" if record.champion is None else f"champion {record.champion}"
    version = f" Version {record.version}, {champion}." if record.version else ""
    print(f"{record.said}.{version}", flush=True)


def _finish_killed_promotion(params: Params) -> None:
    """Do what a kill left undone of a promotion; a registry that is down is a warning, since a
    retraining without changes needs none.
    """
    from pipelines.registry.finish import finish_promotion

    try:
        finish_promotion(params.retraining.registry, params.retraining.anchor)
    except DenseclError as error:
        print(f"warning: {error}", file=sys.stderr, flush=True)


def _locate_roots(params: Params) -> dict[str, Path]:
    """Where pictures of the page are read; of a dataset without images there are none."""
    from densecl.datasets.storage.remote_root import locate_root

    roots = dict[str, Path]()
    for name, dataset in params.datasets.items():
        with suppress(DenseclError):
            roots[name] = locate_root(dataset)
    return roots


def _report_outcome(params: Params, record: RetrainingRecord, verdict: GateVerdict | None) -> None:
    from pipelines.outcome.notify import notify_outcome

    if verdict is not None:
        from pipelines.outcome.page import write_page
        from pipelines.schemas import SourceChanges

        write_page(
            read_json(SourceChanges, paths.CHANGES),
            verdict,
            record,
            csv_log.read_records(paths.RETRAINING_LOG, RetrainingRecord)[:-1],
            _locate_roots(params),
        )
    notify_outcome(params.retraining.notify, record, verdict)
