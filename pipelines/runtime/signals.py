"""A signal to a pipeline stops the stage at work, which keeps what it needs to go on, and then the
pipeline.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from densecl.errors import STOPPED, Stopped
from densecl.runtime.signals import SIGNALS


class Stopping:
    """Passes SIGINT and SIGTERM on to the running stage; the pipeline itself ends when that has
    ended.
    """

    def __init__(self) -> None:
        self.asked = 0

    def listen(self) -> None:
        for each in SIGNALS:
            signal.signal(each, self._ask)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While a stage runs. ZenML's own handler would raise in the midst of waiting for it, and
        leave it behind.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread gets signals, and may say who handles them
            return
        before = {each: signal.getsignal(each) for each in SIGNALS}
        self.listen()
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def check(self) -> None:
        """Stopped if a signal has come."""
        if self.asked:
            raise Stopped(
                f"{signal.Signals(self.asked).name}: stopped; `python -m pipelines replay` goes "
                f"on from there"
            )

    def _ask(self, number: int, _: object) -> None:
        import psutil

        if self.asked:
            print("error: stopped at once at the second signal", file=sys.stderr, flush=True)
            os._exit(STOPPED)
        self.asked = number
        for child in (
            psutil.Process().children()
        ):  # not theirs: a training's workers are the training's to end
            child.send_signal(signal.SIGTERM)


STOPPING = Stopping()
