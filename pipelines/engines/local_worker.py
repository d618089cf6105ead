"""`python -m pipelines.engines.local_worker FD`: brings stages up to date, one after another, as
the process at the other end of the connection FD asks; ends with it.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.config.cluster_params import ClusterParams
from densecl.errors import DenseclError
from densecl.runtime.cli import exit_immediately
from densecl.runtime.progress import PROGRESS_ENV
from densecl.runtime.signals import STOP_SIGNALS, exit_with_parent
from pipelines.engines import publish
from pipelines.engines.executor import StageOutcome
from pipelines.engines.publish import Publication
from pipelines.runtime.error_translation import translate_error
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.stages.dvc_graph import ROOT_FILE, StageGraph

FORWARD_INTERVAL = 0.2  # s
_open_graph = cache(StageGraph)


def main(descriptor: int) -> None:
    """Serve until the parent closes the connection or ends; a running stage then stops first."""
    os.set_inheritable(descriptor, False)
    SIGNAL_FORWARDER.exits_at_second_signal = False  # the whole group gets Ctrl-C, also the parent
    SIGNAL_FORWARDER.install_handlers()
    exit_with_parent()  # by SIGTERM, which stops the running stage
    threading.Thread(target=_forward_signals, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    connection = Connection(descriptor)
    with suppress(EOFError, OSError):
        while True:
            connection.send(_answer(*connection.recv()))


def _forward_signals() -> None:
    """Also to a stage that is started in the moment of the signal."""
    while True:
        time.sleep(FORWARD_INTERVAL)
        if SIGNAL_FORWARDER.received:
            SIGNAL_FORWARDER.terminate_children()


def _answer(task: str, arguments: tuple[Any, ...]) -> object:
    name = arguments[0] if isinstance(arguments[0], str) else arguments[0][0]
    with _redirect_output(paths.stage_log(name)):
        try:
            return TASKS[task](*arguments)
        except DenseclError as error:
            return error
        except Exception as error:
            traceback.print_exc()
            # With its text only: not every exception can be sent.
            return translate_error(error) or RuntimeError(f"{name}: {traceback.format_exc()}")


def update_stage(name: str, file: Path) -> StageOutcome:
    """Bring a stage up to date."""
    started = time.monotonic()
    progress_file = paths.stage_progress_file(name)
    progress_file.unlink(missing_ok=True)  # of a process that was killed
    os.environ[PROGRESS_ENV] = str(progress_file.absolute())

    def start() -> None:
        os.ftruncate(sys.stdout.fileno(), 0)  # the output of the run before
        progress_file.touch()

    try:
        result, reference = _open_graph(file).update_stage(name, start)
    finally:
        progress_file.unlink(missing_ok=True)
    return StageOutcome(result, reference, time.monotonic() - started)


def restore_stage(name: str, file: Path) -> StageOutcome:
    """Bring a stage up to date by its run in the DVC remote; CommandNeeded if there is none."""
    from pipelines.stages import transfer

    started = time.monotonic()
    paths.stage_progress_file(name).unlink(missing_ok=True)
    result, reference = transfer.restore_stage(_open_graph(file), name)
    return StageOutcome(result, reference, time.monotonic() - started)


def publish_inputs(names: tuple[str, ...], commit: str, settings: ClusterParams) -> Publication:
    """Push what a job reads to the DVC remote."""
    return publish.publish_inputs(_open_graph(ROOT_FILE), names, commit, settings)


TASKS: dict[str, Callable[..., object]] = {
    "update": update_stage,
    "restore": restore_stage,
    "publish": publish_inputs,
}


@contextmanager
def _redirect_output(log: Path) -> Iterator[None]:
    """Send everything that this process and its children print to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    with log.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        sys.stdout.flush()
        for descriptor, original in zip((1, 2), saved, strict=True):
            os.dup2(original, descriptor)
            os.close(original)


if __name__ == "__main__":
    main(int(sys.argv[1]))
    exit_immediately(0)
