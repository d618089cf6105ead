"""When this process ends: on a signal, after what must be finished; and with the process that
started it.

Imports no torch: every command starts with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from densecl.errors import EXIT_RETRY, Interrupted

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOP_TIMEOUT = (
    8.0  # s from a signal to the end, whatever hangs: so that a large process is gone within 10
)
SHELLS = ("sh", "dash", "bash", "zsh", "ksh", "fish")
PR_SET_PDEATHSIG = 1


class SignalHandler:
    """Has a signal asked to stop? Raises Interrupted at once, or, within `held()`, when `check` is
    called.
    """

    def __init__(self) -> None:
        self.received = 0
        self.deferral_depth = 0

    def install_handlers(self) -> None:
        """Take SIGINT and SIGTERM over, for a command's whole life; forked children do not inherit
        it.
        """
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle_signal)
        # Written to by the C handler: a main thread that waits inside a library would never run a
        # Python handler.
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._writer = writer  # kept open
        threading.Thread(target=self._exit_after_timeout, args=(reader,), daemon=True).start()
        os.register_at_fork(after_in_child=_reset_child_signals)

    @contextlib.contextmanager
    def defer_signals(self) -> Iterator[None]:
        """Inside, a signal waits for `raise_if_signalled`."""
        self.deferral_depth += 1
        try:
            yield
        finally:
            self.deferral_depth -= 1

    def raise_if_signalled(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.received:
            raise Interrupted(signal.Signals(self.received).name)

    def _handle_signal(self, number: int, _: object) -> None:
        is_first, self.received = not self.received, number
        if (
            is_first and not self.deferral_depth
        ):  # a second signal must not break off what the first one's end is writing
            self.raise_if_signalled()

    def _exit_after_timeout(self, reader: socket.socket) -> None:
        while not set(STOP_SIGNALS) & set(reader.recv(64)):
            pass  # other signals wake it too, e.g. SIGCHLD
        time.sleep(STOP_TIMEOUT)
        os.write(
            2,
            b"error: stopped at once: the step or the writing did not end in time; the same "
            b"command goes on "
            b"from the last checkpoint\n",
        )
        os._exit(EXIT_RETRY)


SIGNAL_HANDLER = SignalHandler()


def exit_with_parent(number: int = signal.SIGTERM) -> None:
    """Send this process `number` when the one that started it dies, so that a killed `dvc repro`
    leaves nothing at work.

    Linux does it by itself; elsewhere, and where a shell stands between, a thread looks twice a
    second.
    """
    parent = os.getppid()
    _set_parent_death_signal(number)
    if parent == 1:
        # started by init, or in a container whose first process is the shell: nobody to end with
        return
    grandparent = _read_parent_pid(parent) if _read_process_name(parent) in SHELLS else 0

    def watch_parent() -> None:
        while os.getppid() == parent and (
            grandparent <= 1 or _read_parent_pid(parent) == grandparent
        ):
            time.sleep(0.5)
        os.kill(os.getpid(), number)

    threading.Thread(target=watch_parent, daemon=True).start()


def exit_worker_with_parent() -> None:
    """The same for a helper process, at once: it has nothing to finish."""
    parent = os.getppid()
    _set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != parent:  # died before the kernel was told
        os._exit(EXIT_RETRY)


def _reset_child_signals() -> None:
    """In a forked child (a loader's worker): a signal to the whole group, as Ctrl-C and `timeout`
    send, is the parent's to answer, which still needs the batches of its last step; the child ends
    with it.
    """
    os.setpgid(0, 0)  # ignoring would not do: torch's workers set a handler of their own
    signal.set_wakeup_fd(-1)  # else what the child is sent would look to the parent as its own
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    exit_worker_with_parent()


def _set_parent_death_signal(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))


def _read_process_name(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _read_parent_pid(process: int) -> int:
    """0 where it cannot be known."""
    try:
        return int(
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
        )
    except OSError:
        return 0
