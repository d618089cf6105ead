"""The order in which stages run: each as soon as those that it depends on are up to date."""

import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool

from densecl.errors import RetryLater
from pipelines.engine.display import StageDisplay
from pipelines.engine.executor import StageExecutor, StageOutcome
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.stages.dvc_graph import StageGraph

POLL_INTERVAL = 0.25  # s between two updates of the display


class StageScheduler:
    """Brings the stages `names` of a graph up to date, at most `jobs` at a time.

    After a failure or a signal no stage starts; the running ones end first. A stage whose
    `meta.exclusive` is set in dvc.yaml runs alone.
    """

    def __init__(
        self,
        graph: StageGraph,
        names: Sequence[str],
        executor: StageExecutor,
        jobs: int,
        display: StageDisplay,
    ) -> None:
        self.graph, self.executor, self.jobs, self.display = graph, executor, jobs, display
        self.waiting = list(names)
        self.running: dict[Future[StageOutcome], str] = {}
        self.outcomes: dict[str, StageOutcome] = {}
        self.failure: BaseException | None = None

    def run(self) -> dict[str, StageOutcome]:
        """Outcomes of all stages; raises the first failure, and RetryLater after a signal."""
        while self.waiting or self.running:
            self._advance()
        if self.failure:
            raise self.failure
        return self.outcomes

    def wait_for(self, name: str) -> StageOutcome:
        """Outcome of one stage; other stages run meanwhile. Raises what `run` raises."""
        while name not in self.outcomes and (self.waiting or self.running):
            self._advance()
        if name not in self.outcomes:
            raise self.failure or KeyError(name)
        return self.outcomes[name]

    def _advance(self) -> None:
        """Start what can start, and wait a moment for what runs."""
        if self.failure is None and not SIGNAL_FORWARDER.received:
            self._start_ready_stages()
        elif not self.running:
            if SIGNAL_FORWARDER.received:
                name = signal.Signals(SIGNAL_FORWARDER.received).name
                raise RetryLater(f"{name}: stopped; run the same command to resume")
            raise self.failure or RuntimeError("no stage can start")
        for future in wait(self.running, POLL_INTERVAL, FIRST_COMPLETED).done:
            self._finish(self.running.pop(future), future)
        self.display.refresh(self.running.values())

    def _start_ready_stages(self) -> None:
        remaining = {*self.waiting, *self.running.values()}
        for name in tuple(self.waiting):
            is_alone = self.graph.is_exclusive(name)
            has_room = not self.running if is_alone else len(self.running) < self.jobs
            if not has_room or any(map(self.graph.is_exclusive, self.running.values())):
                continue
            if remaining.isdisjoint(self.graph.upstream[name]):
                self.waiting.remove(name)
                self.running[self.executor.submit(name, self.graph.file)] = name

    def _finish(self, name: str, future: Future[StageOutcome]) -> None:
        try:
            self.outcomes[name] = future.result()
        except BrokenProcessPool:
            error = RetryLater(f"{name}: its process was killed; run the same command to resume")
            self.failure = self.failure or error
        except BaseException as error:
            self.failure = self.failure or error
            self.display.report_failure(name)
        else:
            self.display.report_outcome(name, self.outcomes[name])
