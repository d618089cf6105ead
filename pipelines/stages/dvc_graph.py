"""The stage graph of a dvc.yaml, from DVC's own index, and updates of single stages."""

import logging
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx

from densecl.errors import EXIT_RETRY, EXIT_USER_ERROR, DenseclError, RetryLater
from densecl.runtime.cli import ERROR_LOG_ENV, shorten_line
from pipelines.runtime import error_translation
from pipelines.runtime.error_translation import iter_causes
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.schemas import StageRef, StageResult
from pipelines.stages.champion_stages import STAGES_FILE

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

ROOT_FILE = Path("dvc.yaml")
BUSY_TIMEOUT = 30.0  # s; a stage of a killed run ends within 10 s


class StageGraph:
    """Stages by name, in topological order.

    One opened repository serves all of them: opening takes half a second, telling whether a stage
    changed a hundredth.
    """

    def __init__(self, file: Path = ROOT_FILE) -> None:
        self.file = file
        self.repo = open_repo()
        graph = _read_graph(self.repo)
        own = {s for s in graph if str(s.path_in_repo) == file.as_posix() and hasattr(s, "name")}
        self.stages: dict[str, PipelineStage] = {
            stage.name: stage for stage in networkx.dfs_postorder_nodes(graph) if stage in own
        }
        if file == ROOT_FILE and not self.stages:
            raise DenseclError(
                f"{file}: found no stages, expected those of the pipeline; `git checkout {file}`"
            )
        self.upstream: dict[str, list[str]] = {
            name: [before.name for before in graph.successors(stage) if before in own]
            for name, stage in self.stages.items()
        }

    def select_with_upstream(self, *kinds: str) -> list[str]:
        """Names of the stages of some kinds (`prepare` of `prepare@imagenet`) and of their
        dependencies, in order.
        """
        graph = networkx.DiGraph(self.upstream)
        chosen = [name for name in self.stages if get_stage_kind(name) in kinds]
        selected = set(chosen).union(*(networkx.descendants(graph, name) for name in chosen))
        return [name for name in self.stages if name in selected]

    def is_exclusive(self, name: str) -> bool:
        """True if the stage must run alone: `meta: {exclusive: true}` in dvc.yaml."""
        return bool((self.stages[name].meta or {}).get("exclusive"))

    def is_up_to_date(self) -> bool:
        """True if no stage has to run, and none is running in another process."""
        from dvc.lock import LockError

        from pipelines.stages.dvc_files import hash_paths_once

        try:
            with self.hold_lock(), hash_paths_once():
                return not any(stage.changed() for stage in self.stages.values())
        except LockError:
            return False

    def must_run(self, name: str) -> bool:
        """True if a stage, or one upstream of it, has to run or to be restored."""
        upstream = networkx.descendants(networkx.DiGraph(self.upstream), name)
        return any(self._is_changed(stage) for stage in (name, *upstream))

    def sort_lock_file(self) -> None:
        """Write the stages of dvc.lock in the order of the graph, as one `dvc repro` does; entries
        of stages that are no more come last.
        """
        from dvc.utils.serialize import load_yaml, modify_yaml

        path = self.file.with_suffix(".lock")
        with self.hold_lock():
            found = list(load_yaml(path).get("stages", {})) if path.exists() else []
            order = sorted(found, key=[*self.stages, *found].index)
            if order != found:
                with modify_yaml(path, fs=self.repo.fs) as lock:
                    for name in order:
                        lock["stages"][name] = lock["stages"].pop(name)

    def update_stage(
        self, name: str, on_start: Callable[[], None], pull: bool = False
    ) -> tuple[StageResult, StageRef]:
        """Bring one stage up to date, given that its dependencies are; `on_start` is called first
        if it has to run. With `pull`, runs of other machines are looked for in the DVC remote.

        DenseclError where its command fails, RetryLater where it was stopped.
        """
        from dvc.exceptions import ReproductionError
        from dvc.stage.exceptions import StageNotFound

        SIGNAL_FORWARDER.raise_if_signalled()
        if name not in self.stages:
            raise _explain_absence(name)
        if not self._is_changed(name):
            return "unchanged", self._build_reference(name)
        on_start()
        with (
            SIGNAL_FORWARDER.handle_signals(),
            _collect_commands() as commands,
            _collect_errors() as error_file,
        ):
            try:
                done = self.repo.reproduce(
                    targets=[self.stages[name].addressing], single_item=True, pull=pull
                )
            except ReproductionError as error:
                raise _translate_failure(name, error, error_file.read_text("utf-8")) from None
            except StageNotFound:
                raise _explain_absence(name) from None
        self.stages |= {stage.name: stage for stage in done}  # with the hashes they have now
        return "ran" if commands else "restored", self._build_reference(name)

    def is_unchanged(self, reference: StageRef, deps: bool) -> bool:
        """True if the stage's outs, and its deps if `deps`, still have the recorded hashes in the
        lock file and on disk.
        """
        if reference.stage not in self.stages:
            return False
        stage, current = self.stages[reference.stage], self._build_reference(reference.stage)
        if current.outs != reference.outs or (deps and current.deps != reference.deps):
            return False
        with self.hold_lock():
            return not (stage.changed() if deps else stage.changed_outs())

    def _is_changed(self, name: str) -> bool:
        """True if a stage must run; waits a little for another process that runs it."""
        from dvc.lock import LockError

        deadline = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                with self.hold_lock():
                    return bool(self.stages[name].changed())
            except LockError as error:
                if time.monotonic() > deadline:
                    raise _explain_lock(name, error) from None
            SIGNAL_FORWARDER.raise_if_signalled()
            time.sleep(0.5)

    @contextmanager
    def hold_lock(self) -> Iterator[None]:
        """Hold DVC's lock; waits for other DVC commands, until a signal arrives."""
        SIGNAL_FORWARDER.may_raise = True
        try:
            self.repo.lock.lock()
        finally:
            SIGNAL_FORWARDER.may_raise = False
        try:
            yield
        finally:
            self.repo.lock.unlock()

    def _build_reference(self, name: str) -> StageRef:
        stage = self.stages[name]
        return StageRef(
            stage=name, deps=_collect_hashes(stage.deps), outs=_collect_hashes(stage.outs)
        )


def get_stage_kind(name: str) -> str:
    return name.partition("@")[0]


def open_repo() -> "Repo":
    """The DVC repository of this folder; DenseclError if there is none."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import SCMError

    from pipelines.stages.dvc_files import ReplacingFileSystem

    logging.getLogger("dvc").setLevel(
        logging.ERROR
    )  # this package prints one line per stage, and raises failures
    for logger_name in ("dvc_data", "dvc_objects"):  # they print tracebacks
        logging.getLogger(logger_name).setLevel(logging.CRITICAL)
    try:
        return Repo(fs=ReplacingFileSystem(), _wait_for_lock=True)
    except NotDvcRepoError:
        raise DenseclError(
            f"{shorten_line(Path.cwd())}: found no .dvc folder, "
            "expected the project's root; change to it, or "
            f"`dvc init`"
        ) from None
    except SCMError as error:
        raise DenseclError(
            f"{error}, which DVC expects: clone the project or `git init`; without git, `dvc "
            f"config core.no_scm true`"
        ) from None


def _read_graph(repo: "Repo") -> Any:
    """The graph; DenseclError in one line if a dvc.yaml or params.yaml cannot be read."""
    from dvc.exceptions import DvcException

    try:
        return repo.index.graph
    except DvcException as error:
        text = " ".join(str(error).split())
        advice = (
            "remove it: it is generated, and `retraining` writes it anew"
            if STAGES_FILE.as_posix() in text
            else "`dvc status` says more"
        )
        raise DenseclError(f"DVC: {text}; {advice}") from None


def _collect_hashes(entries: Any) -> dict[str, str]:
    return {str(entry.def_path): entry.hash_info.value or "" for entry in entries}


@contextmanager
def _collect_commands() -> Iterator[list[str]]:
    """Collect DVC's messages about commands that it runs; none if a stage is restored from the run
    cache.
    """
    commands: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("Running stage"):
            commands.append(record.getMessage())
        return False  # not printed

    logger = logging.getLogger("dvc.stage.run")
    logger.setLevel(logging.INFO)
    logger.addFilter(collect)
    try:
        yield commands
    finally:
        logger.removeFilter(collect)


@contextmanager
def _collect_errors() -> Iterator[Path]:
    """A file to which the running command also writes its errors."""
    outer = os.environ.get(ERROR_LOG_ENV)
    with tempfile.NamedTemporaryFile(prefix="densecl-") as file:
        os.environ[ERROR_LOG_ENV] = file.name
        try:
            yield Path(file.name)
        finally:
            del os.environ[ERROR_LOG_ENV]
            if outer is not None:
                os.environ[ERROR_LOG_ENV] = outer


def _explain_absence(name: str) -> RetryLater:
    return RetryLater(
        f"{name}: not in dvc.yaml with these params, which were changed during the run; run the "
        "same command again"
    )


def _explain_lock(name: str, error: BaseException) -> RetryLater:
    return RetryLater(f"{name}: {error_translation.explain_lock(error)}")


def _explain_status(name: str, status: int, message: str) -> DenseclError:
    """The error of a command that ended with a status, negative if a signal killed it."""
    if SIGNAL_FORWARDER.received or status == EXIT_RETRY:
        stopped = SIGNAL_FORWARDER.received or not message
        reason = "stopped; nothing is lost" if stopped else message
        return RetryLater(f"{name}: {reason}: the same command resumes from there")
    if status < 0 or status == 128 + signal.SIGKILL:
        return RetryLater(
            f"{name}: killed by signal {abs(status) % 128}, as where memory runs out; the same "
            "command resumes, with fewer --jobs in less memory"
        )
    return DenseclError(
        f"{name}: its command failed with status {status}{message and f': {message}'}"
    )


def _translate_failure(name: str, error: BaseException, error_log: str) -> DenseclError:
    """An error that names the stage and repeats its message, for the record of the run."""
    from dvc.lock import LockError
    from dvc.stage.exceptions import StageCmdFailedError

    message = "; ".join(line.removeprefix("error: ") for line in error_log.splitlines())
    for cause in iter_causes(error):
        if isinstance(cause, DenseclError):
            return cause
        if isinstance(cause, StageCmdFailedError):
            match = re.search(r"exited with (-?\d+)$", str(cause))
            status = int(match[1]) if match else EXIT_USER_ERROR
            return _explain_status(name, status, message)
        if isinstance(cause, LockError):
            return _explain_lock(name, cause)
        if isinstance(cause, FileNotFoundError) and cause.filename:
            missing = os.path.relpath(cause.filename)
            return DenseclError(
                f"{name}: found no {missing}, which it reads; put it back, or change what names "
                f"it in params.yaml"
            )
    if translation := error_translation.translate_error(error):
        return type(translation)(f"{name}: {translation}")
    return DenseclError(f"{name}: {' '.join(str(error.__cause__ or error).split())}")
