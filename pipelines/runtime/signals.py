"""Forward a signal to the running stage, which saves its state, and then stop the pipeline."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from densecl.errors import EXIT_RETRY, RetryLater
from densecl.runtime.signals import STOP_SIGNALS


class SignalForwarder:
    """Forwards SIGINT and SIGTERM to the running stage; the pipeline ends after the stage."""

    def __init__(self) -> None:
        self.received = 0
        self.may_raise = False  # in the handler itself: the main thread only waits

    def install_handlers(self) -> None:
        for signal_number in STOP_SIGNALS:
            signal.signal(signal_number, self._forward_signal)

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
            raise RetryLater(
                f"{signal.Signals(self.received).name}: stopped; `python -m pipelines replay` "
                f"resumes from there"
            )

    def _forward_signal(self, signal_number: int, _: object) -> None:
        import psutil

        if self.received:
            print("error: stopped at once at the second signal", file=sys.stderr, flush=True)
            os._exit(EXIT_RETRY)
        self.received = signal_number
        for child in (
            psutil.Process().children()
        ):  # not theirs: a training's workers are the training's to end
            child.send_signal(signal.SIGTERM)
        if self.may_raise:
            self.raise_if_signalled()


SIGNAL_FORWARDER = SignalForwarder()
