"""When a process ends: on a signal, once pending writes are done; and together with its parent.

Imports no torch: every command starts with it.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

from densecl.errors import EXIT_RETRY, Interrupted

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOP_TIMEOUT = (
    8.0  # s from a signal to a forced exit, so that even a hanging process ends within 10 s
)
PR_SET_PDEATHSIG = 1


class SignalHandler:
    """Raises Interrupted on SIGINT and SIGTERM: at once, or inside `defer_signals()` when
    `raise_if_signalled` is called.
    """

    def __init__(self) -> None:
        self.received = 0
        self.deferral_depth = 0

    def install_handlers(self) -> None:
        """Handle SIGINT and SIGTERM for the lifetime of the command; forked children do not inherit
        the handlers.
        """
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle_signal)
        # The C handler writes to it: a main thread that waits inside a library never runs a Python
        # handler.
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._writer = writer  # kept open
        threading.Thread(target=self._exit_after_timeout, args=(reader,), daemon=True).start()
        os.register_at_fork(after_in_child=_reset_child_signals)

    @contextlib.contextmanager
    def defer_signals(self) -> Iterator[None]:
        """Within the context, a signal takes effect in `raise_if_signalled`."""
        self.deferral_depth += 1
        try:
            yield
        finally:
            self.deferral_depth -= 1

    def raise_if_signalled(self) -> None:
        """Raise Interrupted if a signal was received."""
        if self.received:
            raise Interrupted(signal.Signals(self.received).name)

    def _handle_signal(self, number: int, _: object) -> None:
        is_first, self.received = not self.received, number
        if (
            is_first and not self.deferral_depth
        ):  # a second signal must not interrupt the writes that follow the first
            self.raise_if_signalled()

    def _exit_after_timeout(self, reader: socket.socket) -> None:
        while not set(STOP_SIGNALS) & set(reader.recv(64)):
            pass  # other signals arrive too, e.g. SIGCHLD
        time.sleep(STOP_TIMEOUT)
        os.write(
            2,
            b"error: stopped at once: the step or a write did not end in time; rerun the same "
            b"command to resume from the last checkpoint\n",
        )
        os._exit(EXIT_RETRY)


SIGNAL_HANDLER = SignalHandler()


def exit_with_parent(number: int = signal.SIGTERM) -> None:
    """Send this process `number` when its parent dies, so that a killed `dvc repro` leaves no
    process running.

    Linux does this itself; elsewhere a thread checks twice per second.
    """
    parent = os.getppid()

    def watch_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), number)

    if sys.platform != "linux":
        threading.Thread(target=watch_parent, daemon=True).start()
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:  # it died before prctl took effect
        os.kill(os.getpid(), number)


def exit_with_starter() -> None:
    """Send this process of `multiprocessing` SIGTERM when the process that started it has ended. Of
    one from a fork server, that is not its parent.
    """
    starter = multiprocessing.parent_process()
    if starter is None:
        return

    def watch_starter() -> None:
        starter.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch_starter, daemon=True).start()


def exit_worker_with_parent() -> None:
    """Kill a worker process together with its parent; it has nothing to finish."""
    exit_with_parent(signal.SIGKILL)


def _reset_child_signals() -> None:
    """Restore default signals in a forked child (a loader's worker). Ctrl-C and `timeout` signal
    the whole group, but the parent still needs the batches of its last step; the child ends with
    the parent.
    """
    os.setpgid(0, 0)  # SIG_IGN is not enough: torch's workers install their own handler
    signal.set_wakeup_fd(-1)  # else the parent would receive the child's signals
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    exit_worker_with_parent()
