"""How a command ends: one line for what went wrong, and an exit status that says whether to change
something or go on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from densecl.errors import EXIT_OK, EXIT_RETRY, DenseclError
from densecl.runtime.signals import SIGNAL_HANDLER, exit_with_parent

# environment: a file that gets what is told too, for who started this command and reports on it
ERROR_LOG_ENV = "DENSECL_ERROR_LOG"
# What a disk or its owner refuses: no mistake in params or data, and gone once there is room or
# permission.
RETRYABLE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def setup_process(stage: bool) -> None:
    """Once, in the main thread of a process that is a command. A stage ends with its parent, `dvc
    repro` or torchrun, unless hanging up is ignored: who types nohup wants it to outlive the shell.
    """
    SIGNAL_HANDLER.install_handlers()
    if stage and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        exit_with_parent()


def exit_immediately(status: int) -> NoReturn:
    """End at once. torch takes seconds to tear itself down, and a kill in them would undo for `dvc
    repro` what is done.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_command(command: Callable[[], object]) -> int:
    """Exit status of a call: 0 done, 2 a mistake, 75 stopped and to be gone on with; what went
    wrong is on stderr.
    """
    try:
        command()
    except DenseclError as error:
        print_error(str(error))
        return error.status
    except KeyboardInterrupt as error:
        reason = str(error) or "SIGINT"
        if os.environ.get("RANK", "0") == "0":  # the others were asked too
            print_error(
                reason
                if " " in reason
                else f"{reason}: stopped; nothing is lost, the same command goes on"
            )
        return EXIT_RETRY
    except OSError as error:
        if error.errno not in RETRYABLE_ERRNOS:
            raise
        prefix = f"{error.filename}: " if error.filename else ""
        print_error(
            f"{prefix}{error.strerror}; nothing half-written is kept; make room or allow writing, "
            f"then run the same command again"
        )
        return EXIT_RETRY
    return EXIT_OK


def print_error(text: str) -> None:
    """On stderr, a line a mistake."""
    rank = os.environ.get("RANK", "0")  # of several processes that train one model
    prefix = "error: " if rank == "0" else f"error: process {rank}: "
    if text:
        lines = "\n".join(prefix + line for line in text.splitlines())
        print(lines, file=sys.stderr, flush=True)
        if path := os.environ.get(ERROR_LOG_ENV):
            with (
                contextlib.suppress(OSError),
                Path(path).open("a", encoding="utf-8") as file,
            ):  # a full disk, say
                print(lines, file=file)
