"""The DVC stages of one dvc.yaml: their order, and one of them brought up to date. DVC's index is
the only definition.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from densecl.errors import MISTAKE, STOPPED, DenseclError, Stopped
from densecl.runtime.cli import TOLD
from pipelines.runtime import error_translation
from pipelines.runtime.error_translation import causes
from pipelines.runtime.signals import STOPPING
from pipelines.schemas import Did, StageRef
from pipelines.stages.champion_stages import FILE

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

T = TypeVar("T")
PATIENCE = 60.0  # s that another process may hold DVC's lock between two of its stages
ROOT = Path("dvc.yaml")


class Graph:
    """Stages by the name that stands in dvc.yaml, each after those it depends on.

    One opened repository serves all of them: opening takes half a second, telling whether a stage
    changed a hundredth.
    """

    def __init__(self, file: Path = ROOT) -> None:
        self.file = file
        self.repo = _opened()
        self.stages: dict[str, PipelineStage] = {}
        self.upstream: dict[str, tuple[str, ...]] = {}
        self._read()

    def _read(self) -> None:
        import networkx

        graph = _readable(lambda: self.repo.index.graph)
        mine = {
            s
            for s in graph
            if str(s.path_in_repo) == self.file.as_posix() and getattr(s, "name", None)
        }
        self.stages = {s.name: s for s in networkx.dfs_postorder_nodes(graph) if s in mine}
        if self.file == ROOT and not self.stages:
            raise DenseclError(
                f"{self.file}: found no stages, expected those of the pipeline; `git checkout "
                f"{self.file}`"
            )
        self.upstream = {
            n: tuple(u.name for u in graph.successors(s) if u in mine)
            for n, s in self.stages.items()
        }

    def until(self, *kinds: str) -> list[str]:
        """Names of the stages of some kinds (`prepare` of `prepare@imagenet`) and all that they
        depend on, in order.
        """
        wanted = {name for name in self.stages if kind(name) in kinds}
        open_ = list(wanted)
        while open_:
            new = set(self.upstream[open_.pop()]) - wanted
            wanted |= new
            open_ += new
        return [name for name in self.stages if name in wanted]

    def bring(self, name: str, begin: Callable[[], None]) -> tuple[Did, StageRef]:
        """Bring one stage up to date, what it depends on being so; `begin` is called first if there
        is something to do.

        DenseclError where its command fails, Stopped where it was stopped; another process at work
        with DVC is waited for.
        """
        STOPPING.check()
        if not self._changed(name):
            return "unchanged", self._reference(name)
        begin()
        with STOPPING.listening(), _commands() as run:
            for stage in _patiently(lambda: self._reproduce(name)):
                self.stages[stage.name] = stage  # with the hashes it has now
        return "ran" if run else "restored", self._reference(name)

    def still(self, left: StageRef, deps: bool) -> bool:
        """Whether the stage's outs, and its `deps` if asked, are in the lock file and on the disk
        as they were left then.
        """
        stage = self.stages.get(left.stage)
        if stage is None:
            return False
        now = self._reference(left.stage)

        def ask() -> bool:
            with self.repo.lock:
                return bool(stage.changed() if deps else stage.changed_outs())

        return (
            now.outs == left.outs and not (deps and now.deps != left.deps) and not _patiently(ask)
        )

    def _changed(self, name: str) -> bool:
        def ask() -> bool:
            with self.repo.lock:
                return bool(self.stages[name].changed())

        return _patiently(ask)

    def _reproduce(self, name: str) -> list[Any]:
        from dvc.exceptions import ReproductionError

        with _told() as told:
            try:
                return self.repo.reproduce(targets=[self.stages[name].addressing], single_item=True)
            except ReproductionError as error:
                raise _failure(name, error, told.read_text(encoding="utf-8")) from None

    def _reference(self, name: str) -> StageRef:
        stage = self.stages[name]
        return StageRef(stage=name, deps=_hashes(stage.deps), outs=_hashes(stage.outs))


def kind(name: str) -> str:
    return name.partition("@")[0]


def _opened() -> Repo:
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import SCMError

    logging.getLogger("dvc").setLevel(logging.ERROR)  # a line a stage is ours; failures are raised
    for traced in ("dvc_data", "dvc_objects"):  # theirs with a traceback
        logging.getLogger(traced).setLevel(logging.CRITICAL)
    try:
        return Repo()
    except NotDvcRepoError:
        raise DenseclError(
            f"{Path.cwd()}: found no .dvc folder, expected the project's root; change to it, or "
            f"`dvc init`"
        ) from None
    except SCMError as error:
        raise DenseclError(
            f"{error}, which DVC expects: clone the project or `git init`; without git, `dvc "
            f"config core.no_scm true`"
        ) from None


def _readable(read: Callable[[], T]) -> T:
    """DenseclError in a line where a dvc.yaml or params.yaml cannot be read."""
    from dvc.exceptions import DvcException

    try:
        return read()
    except DvcException as error:
        text = " ".join(str(error).split())
        if FILE.as_posix() in text:
            raise DenseclError(
                f"DVC: {text}; remove it: it is generated, and `retraining` writes it anew"
            ) from None
        raise DenseclError(f"DVC: {text}; `dvc status` says more") from None


def _hashes(entries: Any) -> dict[str, str]:
    return {str(entry.def_path): entry.hash_info.value or "" for entry in entries}


@contextmanager
def _commands() -> Iterator[list[str]]:
    """Collects DVC's word that it runs a command; there is none where a stage is restored from the
    run cache.
    """
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Running stage"):
                found.append(record.getMessage())

    logger, listener = logging.getLogger("dvc.stage.run"), Listener(logging.INFO)
    level, passes = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(listener)
    try:
        yield found
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = passes


@contextmanager
def _told() -> Iterator[Path]:
    """A file that the command at work writes its errors to, besides the terminal."""
    with tempfile.NamedTemporaryFile(prefix="densecl-") as file:
        os.environ[TOLD] = file.name
        try:
            yield Path(file.name)
        finally:
            del os.environ[TOLD]


def _patiently(act: Callable[[], T]) -> T:
    """`act`, again and again while another process holds DVC's lock; Stopped after a minute of
    that.
    """
    from dvc.lock import LockError

    until = time.monotonic() + PATIENCE
    while True:
        try:
            return act()
        except LockError as error:
            STOPPING.check()
            if time.monotonic() > until:
                held = " ".join(str(error).split())
                raise Stopped(
                    f"DVC's lock stayed busy for {PATIENCE:g} s ({held}); run again when it is free"
                ) from None
            time.sleep(0.5)


def _failure(name: str, error: BaseException, told: str) -> DenseclError:
    """Which stage it was, and its own words: they stand on the terminal already, but not where the
    run is recorded.
    """
    from dvc.stage.exceptions import StageCmdFailedError

    said = "; ".join(line.removeprefix("error: ") for line in told.splitlines())
    for cause in causes(error):
        if isinstance(cause, StageCmdFailedError):
            found = re.search(r"exited with (-?\d+)$", str(cause))
            status = int(found[1]) if found else MISTAKE
            if status == STOPPED or STOPPING.asked:
                why = "stopped; nothing is lost" if STOPPING.asked or not said else said
                return Stopped(f"{name}: {why}: `python -m pipelines replay` goes on from there")
            return DenseclError(
                f"{name}: its command failed with status {status}: "
                f"{said or 'its output stands above'}"
            )
        if isinstance(cause, FileNotFoundError) and cause.filename:
            missing = os.path.relpath(cause.filename)
            return DenseclError(
                f"{name}: found no {missing}, which it reads; put it back, or change what names "
                f"it in params.yaml"
            )
    if refused := error_translation.told(error):
        return type(refused)(f"{name}: {refused}")
    return DenseclError(f"{name}: {' '.join(str(error.__cause__ or error).split())}")
