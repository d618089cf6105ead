"""A run of a pipeline from its lock to its record: what `python -m pipelines
comparison|retraining|replay` do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from densecl import paths
from densecl.artifacts import read_json
from densecl.config.params import Params, load_params
from densecl.errors import DenseclError
from pipelines.outcome import csv_log
from pipelines.runtime import error_translation, zenml_env
from pipelines.runtime.project_lock import alone
from pipelines.runtime.signals import STOPPING
from pipelines.schemas import Finished, Outcome, Registered, Verdict

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse


def compare() -> None:
    """The whole comparison, tracked."""
    with _begun():
        from pipelines.comparison import comparison

        comparison()
    print(paths.REPORT_TABLE.read_text(encoding="utf-8"))


def retrain(dry_run: bool, force: bool) -> None:
    """Judge a candidate on what changed; `dry_run` prints what changed, and stops."""
    with _begun(tracked=not dry_run):
        if dry_run:
            _print_changes()
            return
        from pipelines.outcome.recovery import overdue
        from pipelines.retraining import retraining

        if (late := overdue(load_params(paths.PARAMS))) is not None:
            print(f"{late.said}; version {late.version}", flush=True)
            csv_log.append(paths.RETRAININGS, late)
            _tell(load_params(paths.PARAMS), late, None)
        _recorded(lambda: retraining(force=force))


def replay() -> None:
    """Continue the newest run where it stopped; DenseclError where it did not stop."""
    with _begun():
        from zenml.enums import ExecutionStatus

        from pipelines.stages.runs import last, pipeline_of, stale

        run = last()
        if run is None or run.status == ExecutionStatus.COMPLETED:
            ended = f"the newest, {run.name}, is complete" if run else "there is no run"
            raise DenseclError(
                f"nothing to go on with: {ended}; `python -m pipelines retraining` starts one"
            )
        if changed := stale(run):
            raise DenseclError(
                f"{run.name}: {', '.join(changed)} changed since, in params, code or files; "
                f"replay would mix old with new: "
                f"`python -m pipelines {pipeline_of(run)}` begins again, and does only what changed"
            )
        print(f"going on with {run.name}", flush=True)
        if pipeline_of(run) == "comparison":
            from pipelines.comparison import comparison

            comparison.replay(pipeline_run=run.id, skip_successful_steps=True)
        else:
            from pipelines.retraining import retraining

            asked = dict(
                run.config.parameters or {}
            )  # ZenML itself would take the defaults of what has one
            _recorded(
                lambda: retraining.replay(
                    pipeline_run=run.id, skip_successful_steps=True, input_overrides=asked
                )
            )


@contextmanager
def _begun(tracked: bool = True) -> Iterator[None]:
    """Alone in the project, signals passed on to the stage at work; params checked first, since
    ZenML takes seconds to import.
    """
    load_params(paths.PARAMS)
    with error_translation.translated(), alone():
        zenml_env.prepare()
        STOPPING.listen()
        if paths.BASELINE_NEXT.exists():
            from pipelines.registry import baseline

            baseline.settle()
        if tracked:
            from pipelines.stages.runs import reap

            for name in reap():
                print(
                    f"{name}: was left running by a process that is gone; marked as failed",
                    flush=True,
                )
        yield


def _print_changes() -> None:
    from pipelines.gate.drift import changes, told
    from pipelines.stages.dvc_graph import Graph

    graph = Graph()
    for name in graph.until("prepare"):
        graph.bring(name, partial(print, f"{name} ...", flush=True))
    print(told(changes(load_params(paths.PARAMS))))


def _recorded(start: Callable[[], PipelineRunResponse]) -> None:
    """Run it, then write how it ended to reports/retraining.csv and tell it: also where it failed,
    which is raised again.
    """
    began, clock = datetime.now().astimezone(), time.monotonic()
    params, run, failure = load_params(paths.PARAMS), None, None
    try:
        run = start()
        outcome, said, made, verdict = _ended(run)
    except Exception as error:
        failure, made, verdict = error_translation.told(error) or error, None, None
        outcome, said = "failed", " ".join(str(failure).split()) or type(failure).__name__
    champion, unread = _champion(params)
    if outcome == "unchanged" and unread:
        said += f"; the champion is not known: {unread}"
    elif (
        outcome == "unchanged" and champion is None
    ):  # refused so far, or the registry is another one than it was
        said += (
            f"; no champion is found in {params.retraining.registry}: "
            f"`retraining --force` judges a candidate all the same"
        )
    finished = Finished(
        started=began.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 1),
        outcome=outcome,
        said=said,
        version=made.version if made else None,
        champion=champion,
        zenml_run=str(run.id) if run else _newest(),
    )
    if verdict is not None:
        from pipelines.outcome.git_snapshot import keep

        finished = finished.model_copy(update={"git": keep(params, finished, verdict)})
    csv_log.append(paths.RETRAININGS, finished)
    _tell(params, finished, verdict)
    if failure is not None:
        raise failure
    version = (
        f" Version {finished.version}, champion {finished.champion}." if finished.version else ""
    )
    print(f"{finished.said}.{version}", flush=True)


def _ended(run: PipelineRunResponse) -> tuple[Outcome, str, Registered | None, Verdict | None]:
    steps = run.steps
    if "register" not in steps:
        return "unchanged", "nothing changed since the last judged candidate", None, None
    made, verdict = (
        steps[name].outputs[output][0].load()
        for name, output in (("register", "registered"), ("judge", "verdict"))
    )
    return "promoted" if made.promoted else "kept", verdict.said, made, verdict


def _champion(params: Params) -> tuple[str | None, str]:
    """Its version, and what kept it from being read."""
    from pipelines.registry import registry

    try:
        return registry.champion(params.retraining.registry).version, ""
    except (
        Exception
    ) as error:  # a registry that is down is one more reason to write down how the run ended
        return None, " ".join(str(error).split())


def _newest() -> str | None:
    from pipelines.stages.runs import last

    run = last()
    return str(run.id) if run else None


def _tell(params: Params, finished: Finished, verdict: Verdict | None) -> None:
    from pipelines.outcome.notify import notify

    if verdict is not None:
        from pipelines.outcome.page import write_page
        from pipelines.schemas import Changes

        write_page(
            read_json(Changes, paths.CHANGES),
            verdict,
            finished,
            version=finished.version,
            history=csv_log.read(paths.RETRAININGS, Finished)[:-1],
            roots={name: Path(dataset.root) for name, dataset in params.datasets.items()},
        )
    notify(params.retraining.notify, finished, verdict)
