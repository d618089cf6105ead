"""The order in which stages run: each as soon as those that it depends on are up to date."""

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from densecl.errors import RetryLater
from pipelines.engines.display import StageDisplay
from pipelines.engines.executor import LeftRunning, StageExecutor, StageOutcome
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.stages.dvc_graph import StageGraph

POLL_INTERVAL = 0.25  # s between two updates of the display


class StageScheduler:
    """Brings the stages `names` of a graph up to date, as many at a time as their machines take.

    Stages of the graph that are not in `names` count as up to date. After a failure or a signal no
    stage starts; the running ones end first. A stage whose `meta.exclusive` is set in dvc.yaml runs
    alone on its machine.
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
        self.running: dict[Future[dict[str, StageOutcome]], list[str]] = {}
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
        if name not in {*self.waiting, *self._running_names, *self.outcomes}:
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
            if not isinstance(self.failure, LeftRunning) and (
                self.failure is None or isinstance(self.failure, RetryLater)
            ):
                SIGNAL_FORWARDER.raise_if_signalled()
            raise self.failure or AssertionError("a signal or a failure was seen")
        if SIGNAL_FORWARDER.received:  # also for a process that has just started
            SIGNAL_FORWARDER.terminate_children()
        for future in wait(self.running, POLL_INTERVAL, FIRST_COMPLETED).done:
            self._finish(self.running.pop(future), future)
        self.display.refresh({n: self.executor.describe(n) for n in self._running_names})

    @property
    def _running_names(self) -> list[str]:
        return [name for names in self.running.values() for name in names]

    def _start_ready_stages(self) -> None:
        remaining = {*self.waiting, *self._running_names}
        for name in tuple(self.waiting):
            if (
                name in self.waiting
                and remaining.isdisjoint(self.graph.upstream[name])
                and self._has_room_for(name)
            ):
                names = self._form_group(name, remaining)
                self.waiting = [other for other in self.waiting if other not in names]
                self.running[self.executor.submit(names, self.graph.file)] = names

    def _form_group(self, name: str, remaining: set[str]) -> list[str]:
        """The stage, and those that run where it runs, once it has."""
        names, file = [name], self.graph.file
        pool = self.executor.get_pool(name, file)
        for other in self.waiting:
            upstream = set(self.graph.upstream[other])
            if (
                self.executor.joins(other, file)
                and self.executor.get_pool(other, file).name == pool.name
                and not upstream.isdisjoint(names)
                and remaining.isdisjoint(upstream - set(names))
            ):
                names.append(other)
        return names

    def _has_room_for(self, name: str) -> bool:
        pool = self.executor.get_pool(name, self.graph.file)
        beside = [
            names[0]
            for names in self.running.values()
            if self.executor.get_pool(names[0], self.graph.file).name == pool.name
        ]
        if pool.is_here and self.graph.is_exclusive(name):
            return not beside
        return len(beside) < pool.size and not (
            pool.is_here and any(map(self.graph.is_exclusive, beside))
        )

    def _finish(self, names: list[str], future: Future[dict[str, StageOutcome]]) -> None:
        try:
            outcomes = future.result()
        except Exception as error:
            self.failure = self.failure or error
            self.display.report_failure(names, error)
        else:
            self.outcomes |= outcomes
            for name, outcome in outcomes.items():
                self.display.report_outcome(name, outcome)
