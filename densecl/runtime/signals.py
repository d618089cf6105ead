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

from densecl.errors import STOPPED, Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LONGEST = (
    8.0  # s from a signal to the end, whatever hangs: so that a large process is gone within 10
)
SHELLS = ("sh", "dash", "bash", "zsh", "ksh", "fish")
PR_SET_PDEATHSIG = 1


class Stop:
    """Has a signal asked to stop? Raises Interrupted at once, or, within `held()`, when `check` is
    called.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.holds = 0

    def listen(self) -> None:
        """Take SIGINT and SIGTERM over, for a command's whole life; forked children do not inherit
        it.
        """
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        for each in SIGNALS:
            signal.signal(each, self._asked)
        # Written to by the C handler: a main thread that waits inside a library would never run a
        # Python handler.
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._writer = writer  # kept open
        threading.Thread(target=self._end_in_time, args=(reader,), daemon=True).start()
        os.register_at_fork(after_in_child=_as_child)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a signal waits for `check`."""
        self.holds += 1
        try:
            yield
        finally:
            self.holds -= 1

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.signal:
            raise Interrupted(signal.Signals(self.signal).name)

    def _asked(self, number: int, _: object) -> None:
        first, self.signal = not self.signal, number
        if (
            first and not self.holds
        ):  # a second signal must not break off what the first one's end is writing
            self.check()

    def _end_in_time(self, reader: socket.socket) -> None:
        while not set(SIGNALS) & set(reader.recv(64)):
            pass  # other signals wake it too, e.g. SIGCHLD
        time.sleep(LONGEST)
        os.write(
            2,
            b"error: stopped at once: the step or the writing did not end in time; the same "
            b"command goes on "
            b"from the last checkpoint\n",
        )
        os._exit(STOPPED)


STOP = Stop()


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Send this process `number` when the one that started it dies, so that a killed `dvc repro`
    leaves nothing at work.

    Linux does it by itself; elsewhere, and where a shell stands between, a thread looks twice a
    second.
    """
    parent = os.getppid()
    _die_with_parent(number)
    if parent == 1:
        # started by init, or in a container whose first process is the shell: nobody to end with
        return
    above = _parent_of(parent) if _name_of(parent) in SHELLS else 0

    def watch() -> None:
        while os.getppid() == parent and (above <= 1 or _parent_of(parent) == above):
            time.sleep(0.5)
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, daemon=True).start()


def end_worker_with_parent() -> None:
    """The same for a helper process, at once: it has nothing to finish."""
    parent = os.getppid()
    _die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # died before the kernel was told
        os._exit(STOPPED)


def _as_child() -> None:
    """In a forked child (a loader's worker): a signal to the whole group, as Ctrl-C and `timeout`
    send, is the parent's to answer, which still needs the batches of its last step; the child ends
    with it.
    """
    os.setpgid(0, 0)  # ignoring would not do: torch's workers set a handler of their own
    signal.set_wakeup_fd(-1)  # else what the child is sent would look to the parent as its own
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    end_worker_with_parent()


def _die_with_parent(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))


def _name_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _parent_of(process: int) -> int:
    """0 where it cannot be known."""
    try:
        return int(
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
        )
    except OSError:
        return 0
