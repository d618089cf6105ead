"""Where stages run: `StageExecutor` is the whole interface."""

from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, Protocol

from pipelines.schemas import StageRef, StageResult


class StageOutcome(NamedTuple):
    """How a stage was brought up to date."""

    result: StageResult
    reference: StageRef
    seconds: float


class StageExecutor(Protocol):
    """Runs stages; each is submitted once all stages that it depends on are up to date."""

    jobs: int  # stages at a time

    def submit(self, name: str, file: Path) -> Future[StageOutcome]:
        """Bring a stage of `file` (a dvc.yaml) up to date; the future raises its error."""
