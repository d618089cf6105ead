"""Forward a signal to the running stages, which save their state, and then stop the pipeline."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from densecl.errors import EXIT_RETRY, RetryLater
from densecl.runtime.signals import STOP_SIGNALS


class SignalForwarder:
    """Forwards SIGINT and SIGTERM to the running stages; the pipeline ends after them."""

    def __init__(self) -> None:
        self.received = 0
        self.may_raise = False  # in the handler itself: the main thread only waits
        self.exits_at_second_signal = True
        self._terminated: set[int] = set()  # process ids

    def install_handlers(self) -> None:
        for signal_number in STOP_SIGNALS:
            signal.signal(signal_number, self._handle_signal)

    @contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Handle signals while a stage runs; ZenML's own handler would raise while the stage is
        running and orphan it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread gets signals, and may say who handles them
            return
        previous = {
            signal_number: signal.getsignal(signal_number) for signal_number in STOP_SIGNALS
        }
        self.install_handlers()
        try:
            yield
        finally:
            for signal_number, handler in previous.items():
                signal.signal(signal_number, handler)

    def raise_if_signalled(self) -> None:
        """Raise RetryLater if a signal was received."""
        if self.received:
            name = signal.Signals(self.received).name
            raise RetryLater(f"{name}: stopped; nothing is lost, the same command resumes")

    def terminate_children(self) -> None:
        """Send SIGTERM to all children that have not got it."""
        # Not their children: a training's workers are the training's to end.
        for child in psutil.Process().children():
            if child.pid not in self._terminated:
                self._terminated.add(child.pid)
                with suppress(psutil.NoSuchProcess):
                    child.terminate()

    def _handle_signal(self, signal_number: int, _: object) -> None:
        if self.received and self.exits_at_second_signal:
            print("error: stopped at once at the second signal", file=sys.stderr, flush=True)
            os._exit(EXIT_RETRY)
        self.received = self.received or signal_number
        self.terminate_children()
        if self.may_raise:
            self.raise_if_signalled()


SIGNAL_FORWARDER = SignalForwarder()
