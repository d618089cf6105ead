"""How a command ends: one line per error, and an exit status (see `densecl.errors`)."""

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
from densecl.runtime.threads import set_openmp_defaults

# Environment variable: a file that also receives the errors, for the parent that reports them.
ERROR_LOG_ENV = "DENSECL_ERROR_LOG"
# A full or read-only disk is not an error of params or data: rerunning succeeds once it is fixed.
RETRYABLE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def setup_process(stage: bool) -> None:
    """Call once, in the main thread of a command, before torch is imported. A stage ends with its
    parent (`dvc repro`, torchrun), unless SIGHUP is ignored: under nohup it must outlive the shell.
    """
    set_openmp_defaults()
    SIGNAL_HANDLER.install_handlers()
    if stage and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        exit_with_parent()


def exit_immediately(status: int) -> NoReturn:
    """Exit without clean-up. torch takes seconds to tear itself down, and a kill during them would
    make `dvc repro` discard finished work.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_command(command: Callable[[], object]) -> int:
    """Run a command and return its exit status; errors are printed to stderr."""
    try:
        command()
    except DenseclError as error:
        print_error(str(error))
        return error.status
    except KeyboardInterrupt as error:
        reason = str(error) or "SIGINT"
        if os.environ.get("RANK", "0") == "0":  # every rank receives the signal
            print_error(
                reason
                if " " in reason
                else f"{reason}: stopped; nothing is lost, rerun the same command to resume"
            )
        return EXIT_RETRY
    except OSError as error:
        if error.errno not in RETRYABLE_ERRNOS:
            raise
        print_error(
            f"{error.filename or 'disk'}: {error.strerror}; no partial file is left; free space or "
            "allow writing, then rerun the same command"
        )
        return EXIT_RETRY
    return EXIT_OK


def print_error(text: str) -> None:
    """Print to stderr, one line per error."""
    rank = os.environ.get("RANK", "0")  # of several processes that train one model
    prefix = "error: " if rank == "0" else f"error: process {rank}: "
    lines = "\n".join(prefix + line for line in text.splitlines())
    print(lines, file=sys.stderr, flush=True)
    if path := os.environ.get(ERROR_LOG_ENV):
        with (
            contextlib.suppress(OSError),
            Path(path).open("a", encoding="utf-8") as file,
        ):  # a full disk, say
            print(lines, file=file)
