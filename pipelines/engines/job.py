"""What runs on a node: lay a clone in scratch, run `python -m pipelines worker` in it, report.

Imports the standard library only: Ray sends this module to nodes that have no clone yet.
"""

import fcntl
import getpass
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

STOP_TIMEOUT = 30.0  # s; a stage saves its checkpoint and ends within 10
PROJECT_ENV = "DENSECL_PROJECT"  # the project's folder, if this node sees it
CHECKPOINTS_ENV = "DENSECL_CHECKPOINTS"
WRITER_ENV = "DENSECL_WRITER"  # densecl/training/checkpoint.py
ERROR_LOG_ENV = "DENSECL_ERROR_LOG"  # densecl/runtime/cli.py
PROGRESS_ENV = "DENSECL_PROGRESS"  # densecl/runtime/progress.py
OUTCOMES = "cache/outcomes.json"  # in the clone: stage -> [result, seconds]
MAX_LOG = 2**18  # bytes of a log that come back from a node without the project's folder


class JobSpec(NamedTuple):
    """A group of stages, the trial of a sweep or the scan of shards, and what it needs besides the
    commit's files and the DVC remote.
    """

    names: tuple[str, ...]
    commit: str
    prefix: str  # the project's folder in its repository; "" or ends in /
    files: dict[str, str]  # path in the project -> content, such as that of dvc.lock
    config: str  # content of .dvc/config.local: the remote, with absolute paths
    project: str  # the project's folder where the job was submitted
    token: str  # content of a file there, which tells whether a node sees the same folder
    token_file: str
    log: str  # the job's output, where the project's folder is seen; "": its own stdout
    progress: str  # likewise, of the running stage
    scratch: str | None
    checkpoints: str | None
    results: tuple[str, ...] = ()  # paths of files in the project that the result brings back


class JobResult(NamedTuple):
    """How a job ended."""

    status: int  # as of every command: 0 done, 2 error, 75 resume
    error: str
    node: str
    seconds: float
    stages: dict[str, tuple[str, float]]  # result and seconds of those that are done
    log: str  # its end, unless the project's folder has it
    files: dict[str, bytes] = {}  # noqa: RUF012 # those of `results` that it left; never changed


class NodeJob:
    """One attempt to run a job on this node."""

    def __init__(self, spec: JobSpec, writer: str = "") -> None:
        self.spec, self.writer = spec, writer or f"{socket.gethostname()}, process {os.getpid()}"
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False
        token = Path(spec.project, spec.token_file)
        self.sees_project = token.is_file() and token.read_text(encoding="utf-8") == spec.token
        base = os.path.expandvars(spec.scratch or tempfile.gettempdir())
        self.scratch = Path(base, f"densecl-{getpass.getuser()}").absolute()
        # Of this node, as nodes may share scratch and some file systems lock for one node only.
        self.clones = self.scratch / "jobs" / socket.gethostname()
        self.clone = self.clones / f"{spec.names[0]}-{uuid.uuid4().hex[:8]}"

    def run(self, pack: bytes) -> JobResult:
        """Run the stages in a clone, which is removed afterwards."""
        started = time.monotonic()
        if fault := self._find_fault():
            return JobResult(2, f"{get_node_name()}: {fault}", get_node_name(), 0.0, {}, "")
        self._remove_dead_clones()
        with self._hold_clone() as lock:
            try:
                return self._run_in_clone(pack, lock, started)
            except BaseException:
                self.stop()
                raise

    def _find_fault(self) -> str:
        """What is wrong with the folders of the section `cluster` on this node; "" if nothing."""
        for key, value in (("scratch", self.spec.scratch), ("checkpoints", self.spec.checkpoints)):
            path = os.path.expandvars(value or "/")
            if "$" in path or not Path(path).is_absolute():
                return (
                    f"cluster.{key}: found {path}, expected a full path of $VARIABLES that are set "
                    f"on the node"
                )
        return self._make_scratch()

    def _make_scratch(self) -> str:
        """Others may write beside it, as in /tmp, but must not have made it; as `_find_fault`."""
        try:
            self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.scratch.lstat()
        except OSError as error:
            return f"cluster.scratch: {error}"
        is_shared = found.st_mode & 0o022 and not self.spec.scratch
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not is_shared:
            return ""
        return (
            f"{self.scratch}: found {stat.filemode(found.st_mode)} of user {found.st_uid}, "
            f"expected a folder that only user {os.geteuid()} writes; remove it or set "
            "cluster.scratch"
        )

    def _run_in_clone(self, pack: bytes, lock: int, started: float) -> JobResult:
        place = self.clone / self.spec.prefix
        self._lay_clone(pack, place)
        log = self._get_log(place)
        with log.open("ab") if log else open(os.dup(1), "ab") as output:  # noqa: PTH123
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines", "worker", *self.spec.names],
                cwd=place,
                env=self._build_environment(place),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # signals of the scheduler are this process's
                pass_fds=[lock],  # held until both have ended
            )
            if self.stopped:  # meanwhile
                self.stop()
            # Without reaping: a signal's handler may wait for the same process.
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        status = self.process.wait()
        return self._build_result(status, place, log, time.monotonic() - started)

    def stop(self) -> None:
        """Have the stage save its state, and wait until it has ended."""
        self.stopped = True
        if self.process is None or self.process.returncode is not None:
            return
        os.kill(self.process.pid, signal.SIGTERM)  # which `send_signal` would do after reaping
        end = time.monotonic() + STOP_TIMEOUT
        while time.monotonic() < end:
            if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                return
            time.sleep(0.1)
        os.killpg(self.process.pid, signal.SIGKILL)

    def _lay_clone(self, pack: bytes, place: Path) -> None:
        self.clone.mkdir(parents=True)
        for command in (
            ("init", "--quiet"),
            ("unpack-objects", "-q"),
            ("update-ref", "--no-deref", "HEAD", self.spec.commit),
            ("reset", "--quiet", "--hard"),
        ):
            if command[0] == "update-ref":  # the history stays behind
                (self.clone / ".git/shallow").write_text(self.spec.commit + "\n", encoding="utf-8")
            subprocess.run(
                ["git", "-c", "core.hooksPath=/dev/null", *command],
                cwd=self.clone,
                input=pack if command[0] == "unpack-objects" else b"",
                check=True,
                stdout=subprocess.DEVNULL,
            )
        cache = json.dumps(str(self.scratch / "cache"))
        config = f"[cache]\n    dir = {cache}\n{self.spec.config}"
        path = place / ".dvc/config.local"
        path.touch(mode=0o600)  # it may hold a key
        path.write_text(config, encoding="utf-8")
        for name, content in self.spec.files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(content, encoding="utf-8")

    def _build_environment(self, place: Path) -> dict[str, str]:
        environment = os.environ | {
            WRITER_ENV: self.writer,
            ERROR_LOG_ENV: str(place / "cache/errors"),
            CHECKPOINTS_ENV: self._choose_checkpoints(),
        }
        (place / "cache").mkdir(exist_ok=True)
        environment.pop(PROGRESS_ENV, None)
        if self.sees_project:
            environment[PROJECT_ENV] = self.spec.project
            environment.setdefault(
                "MLFLOW_TRACKING_URI", f"sqlite:///{self.spec.project}/mlflow.db"
            )
            if self.spec.progress:
                environment[PROGRESS_ENV] = self.spec.progress
        return environment

    def _choose_checkpoints(self) -> str:
        if self.spec.checkpoints:
            return str(Path(os.path.expandvars(self.spec.checkpoints)).absolute())
        return str(Path(self.spec.project if self.sees_project else self.scratch, "checkpoints"))

    def _get_log(self, place: Path) -> Path | None:
        if not self.spec.log:
            return None
        log = Path(self.spec.log) if self.sees_project else place / "cache/output.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        return log

    def _build_result(
        self, status: int, place: Path, log: Path | None, seconds: float
    ) -> JobResult:
        outcomes, errors = place / OUTCOMES, place / "cache/errors"
        text = ""
        if log and not self.sees_project:
            text = log.read_bytes()[-MAX_LOG:].decode("utf-8", "replace")
        stages: dict[str, Any] = json.loads(outcomes.read_text()) if outcomes.exists() else {}
        message = errors.read_text("utf-8", "replace") if errors.exists() else ""
        lines = [line.removeprefix("error: ") for line in message.splitlines()]
        files = {n: (place / n).read_bytes() for n in self.spec.results if (place / n).exists()}
        return JobResult(status, "; ".join(lines), get_node_name(), seconds, stages, text, files)

    @contextmanager
    def _hold_clone(self) -> Iterator[int]:
        """Lock a file beside the clone, which is removed at the end; yields its descriptor."""
        self.clones.mkdir(parents=True, exist_ok=True)
        path = Path(f"{self.clone}.lock")
        with path.open("wb") as lock:
            with suppress(OSError):  # no locks on this file system: then no dead clone is removed
                fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield lock.fileno()
            finally:
                shutil.rmtree(self.clone, ignore_errors=True)
                path.unlink(missing_ok=True)

    def _remove_dead_clones(self) -> None:
        """Those of jobs that were killed on this node: nobody holds their locks."""
        for path in self.clones.glob("*.lock"):
            with suppress(OSError), path.open("rb+") as lock:  # held, or just removed
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink()


def get_node_name() -> str:
    return os.environ.get("SLURMD_NODENAME", socket.gethostname())
