"""One display of all running stages: bars on a terminal, else a line per start and end."""

import json
from collections.abc import Iterable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from densecl import paths
from densecl.errors import RetryLater
from pipelines.engines.executor import StageOutcome


class StageDisplay:
    """Context manager. Reads what stages write to their progress files."""

    def __init__(self, total: int) -> None:
        self.console = Console()
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.total, self.finished = total, 0
        self.overall = self.progress.add_task("stages", total=total, text="")
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "StageDisplay":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def refresh(self, running: Iterable[str]) -> None:
        """Announce the stages that have started, and update the bars."""
        for name in running:
            progress_file = paths.stage_progress_file(name)
            try:
                text = progress_file.read_text(encoding="utf-8")
            except FileNotFoundError:
                continue  # not started, or it has nothing to do
            self._announce(name)
            if text:  # empty until the stage writes its progress
                state = json.loads(text)
                self.progress.update(
                    self.tasks[name],
                    completed=state["done"],
                    total=state["total"],
                    text=state["text"],
                )

    def report_outcome(self, name: str, outcome: StageOutcome) -> None:
        """Print how a stage ended."""
        self.finished += 1
        if outcome.result != "unchanged":
            self._announce(name)
        self._remove_bar(name)
        seconds = "" if outcome.result == "unchanged" else f", {outcome.seconds:.1f} s"
        self._print(f"[{self.finished}/{self.total}] {name}: {outcome.result}{seconds}")
        if outcome.result == "ran":
            self._print_warnings(name)
        self.progress.update(self.overall, completed=self.finished)

    def report_failure(self, name: str, error: Exception) -> None:
        """Print where the output of a failed stage is; its error is raised at the end."""
        self._remove_bar(name)
        reason = "stopped" if isinstance(error, RetryLater) else "failed"
        self._print(f"{name}: {reason}; its output is in {paths.stage_log(name)}")

    def _print_warnings(self, name: str) -> None:
        log = paths.stage_log(name)
        lines = (
            log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        )
        for line in lines:
            if "warning: " in line.lower():
                self._print(f"{name}: {line.strip()}")

    def _announce(self, name: str) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=None, text="")
            self._print(f"{name} ...")

    def _remove_bar(self, name: str) -> None:
        if name in self.tasks:
            self.progress.remove_task(self.tasks.pop(name))

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
