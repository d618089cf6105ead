"""How a command ends: one line per error, and an exit status (see `densecl.errors`)."""

import contextlib
import errno
import getpass
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from densecl.errors import EXIT_OK, EXIT_RETRY, EXIT_USER_ERROR, DenseclError
from densecl.runtime.signals import SIGNAL_HANDLER, exit_with_parent
from densecl.runtime.threads import set_openmp_defaults

# Environment variable: a file that also receives the errors, for the parent that reports them.
ERROR_LOG_ENV = "DENSECL_ERROR_LOG"
MAX_SHOWN = 200  # characters of a path or reason from elsewhere
# What torch's loader says of a worker that was killed, and of a full /dev/shm; it has no class.
WORKER_ERRORS = (
    *("DataLoader worker (pid", "unable to write to file </torch"),
    "unable to allocate shared memory",
)
# Errors of libraries that read files; those of pyarrow are known by where they are raised.
READER_ERRORS = {
    *("SafetensorError", "JSONDecodeError", "ParserError", "EmptyDataError"),
    *("BadZipFile", "ReadError", "UnpicklingError", "UnicodeDecodeError"),
}
DAMAGE_ADVICE = "if it is damaged, `dvc checkout` restores it, or `dvc repro` makes it again"
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
    try:
        sys.stdout.flush()
    except OSError as error:  # a reader that has gone (`| head`), or a full disk
        print_error(f"stdout: {error.strerror}; the output is incomplete, what was written is not")
        status = status or EXIT_RETRY
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(status)


def run_command(command: Callable[[], object]) -> int:
    """Run a command and return its exit status; errors are printed to stderr."""
    _open_standard_files()
    _name_user()
    try:
        command()
    except KeyboardInterrupt as error:
        reason = str(error) or "SIGINT"
        if os.environ.get("RANK", "0") == "0":  # every rank receives the signal
            print_error(
                reason
                if " " in reason
                else f"{reason}: stopped; nothing is lost, rerun the same command to resume"
            )
        return EXIT_RETRY
    except Exception as error:
        if (explanation := explain_error(error)) is None:
            raise
        text, status = explanation
        print_error(text)
        return status
    return EXIT_OK


def explain_error(error: Exception) -> tuple[str, int] | None:
    """What to print and the exit status, by the kind of error; None for a fault of this program."""
    match error:
        case DenseclError():
            return str(error), error.status
        case BrokenPipeError():
            return "stdout: closed by its reader; rerun the same command to resume", EXIT_RETRY
        case OSError() if error.errno in RETRYABLE_ERRNOS:
            advice = "no partial file is left; free space or allow writing, then rerun the same"
            text = f"{error.filename or 'disk'}: {error.strerror}; {advice} command"
            return text, EXIT_RETRY
        case RuntimeError() if any(text in str(error) for text in WORKER_ERRORS):
            advice = "more memory or more /dev/shm, or set DENSECL_WORKERS=0, then rerun the same"
            last = str(error).strip().rpartition("\n")[2]  # of a worker's own traceback
            reason = f"a process that loads images was killed or failed ({shorten_line(last)})"
            return f"{reason}; give it {advice} command to resume", EXIT_RETRY
    return explain_damage(error) or explain_bad_path(error)


def explain_bad_path(error: Exception) -> tuple[str, int] | None:
    """As `explain_error`, of a path or a text that the system or UTF-8 cannot hold."""
    match error:
        case OSError() if error.filename is not None:
            place = shorten_line(error.filename)
            return f"{place}: {error.strerror}; correct the path, or what is there", EXIT_USER_ERROR
        case FileNotFoundError():  # pyarrow's: only the text names the file
            return f"{shorten_line(error)}; expected a file of its stage", EXIT_USER_ERROR
        case UnicodeError():
            return f"{shorten_line(error)}; expected names and texts in UTF-8", EXIT_USER_ERROR
        case ValueError() if str(error) == "embedded null byte":
            return "found a NUL in a path; remove it", EXIT_USER_ERROR
    return None


def explain_damage(error: Exception) -> tuple[str, int] | None:
    """As `explain_error`, of a file whose reader could not use its content. Readers do not name the
    file: it is the last path that a function of this project held.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    is_arrow = (
        frames[-1:]
        and frames[-1].f_code.co_filename.startswith("pyarrow/")
        and not (isinstance(error, OSError) and error.errno)
    )
    if not (is_arrow or type(error).__name__ in READER_ERRORS):
        return None
    held = [value for frame in frames for value in frame.f_locals.values()]
    there = [value for value in held if isinstance(value, Path) and value.exists()]
    if not there:
        return None
    place = next((path for path in reversed(there) if path.is_file()), there[-1])  # else a folder
    reason = f"cannot be read ({type(error).__name__}: {shorten_line(error)})"
    return f"{shorten_line(place)}: {reason}; {DAMAGE_ADVICE}", EXIT_USER_ERROR


def _open_standard_files() -> None:
    """Open what the starter closed (`>&-`) as /dev/null: else the next file that is opened takes
    its number, and receives what child processes print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
            os.set_inheritable(number, True)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _name_user() -> None:
    """Name a user that the system does not know (`docker run --user 12345`), and a home, for
    libraries that record who ran something and look for settings. Not the folder for temporary
    files, where anybody may put some.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):  # the latter from Python 3.13 on
        os.environ["USER"] = f"uid-{os.getuid()}"
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(Path("cache", "home").absolute())


def shorten_line(text: object) -> str:
    """One printable line of at most MAX_SHOWN characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}..."


def print_error(text: str) -> None:
    """Print to stderr, one line per error."""
    rank = os.environ.get("RANK", "0")  # of several processes that train one model
    prefix = "error: " if rank == "0" else f"error: process {rank}: "
    lines = "\n".join(prefix + line for line in text.splitlines())
    lines = lines.encode("utf-8", "backslashreplace").decode("utf-8")  # names of any bytes
    print(lines, file=sys.stderr, flush=True)
    if path := os.environ.get(ERROR_LOG_ENV):
        with (
            contextlib.suppress(OSError),
            Path(path).open("a", encoding="utf-8") as file,
        ):  # a full disk, say
            print(lines, file=file)
