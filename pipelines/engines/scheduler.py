"""The order in which stages run: each as soon as those that it depends on are up to date."""

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from densecl.errors import RetryLater
from pipelines.engines.display import StageDisplay
from pipelines.engines.executor import StageExecutor, StageOutcome
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.stages.dvc_graph import StageGraph

POLL_INTERVAL = 0.25  # s between two updates of the display


class StageScheduler:
    """Brings the stages `names` of a graph up to date, as many at a time as the executor takes.

    Stages of the graph that are not in `names` count as up to date. After a failure or a signal no
    stage starts; the running ones end first. A stage whose `meta.exclusive` is set in dvc.yaml runs
    alone.
    """

    def __init__(
        self,
        graph: StageGraph,
        names: Sequence[str],
        executor: StageExecutor,
        display: StageDisplay,
    ) -> None:
        self.graph, self.executor, self.display = graph, executor, display
        self.waiting = list(names)
        self.running: dict[Future[StageOutcome], str] = {}
        self.outcomes: dict[str, StageOutcome] = {}
        self.failure: BaseException | None = None

    def run(self) -> dict[str, StageOutcome]:
        """Outcomes of all stages; raises the first failure, and RetryLater after a signal."""
        while self.waiting or self.running:
            self._advance()
        if self.failure is not None:
            raise self.failure
        return self.outcomes

    def wait_for(self, name: str) -> StageOutcome:
        """Outcome of one stage; other stages run meanwhile. Raises what `run` raises, and
        RuntimeError for a stage that it was not given.
        """
        if name not in {*self.waiting, *self.running.values(), *self.outcomes}:
            raise RuntimeError(f"{name}: not one of the stages that this run brings up to date")
        while name not in self.outcomes:
            self._advance()
        return self.outcomes[name]

    def _advance(self) -> None:
        """Start what can start, and wait a moment for what runs; raises once nothing runs and
        nothing may start.
        """
        if self.failure is None and not SIGNAL_FORWARDER.received:
            self._start_ready_stages()
        elif not self.running:
            if self.failure is None or isinstance(self.failure, RetryLater):
                SIGNAL_FORWARDER.raise_if_signalled()
            raise self.failure or AssertionError("a signal or a failure was seen")
        if SIGNAL_FORWARDER.received:  # also for a process that has just started
            SIGNAL_FORWARDER.terminate_children()
        for future in wait(self.running, POLL_INTERVAL, FIRST_COMPLETED).done:
            self._finish(self.running.pop(future), future)
        self.display.refresh(self.running.values())

    def _start_ready_stages(self) -> None:
        remaining = {*self.waiting, *self.running.values()}
        for name in tuple(self.waiting):
            if self._has_room_for(name) and remaining.isdisjoint(self.graph.upstream[name]):
                self.waiting.remove(name)
                self.running[self.executor.submit(name, self.graph.file)] = name

    def _has_room_for(self, name: str) -> bool:
        if self.graph.is_exclusive(name):
            return not self.running
        return len(self.running) < self.executor.jobs and not any(
            map(self.graph.is_exclusive, self.running.values())
        )

    def _finish(self, name: str, future: Future[StageOutcome]) -> None:
        try:
            self.outcomes[name] = future.result()
        except Exception as error:
            self.failure = self.failure or error
            self.display.report_failure(name, error)
        else:
            self.display.report_outcome(name, self.outcomes[name])
