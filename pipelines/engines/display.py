"""One display of all running stages: bars on a terminal, else a line per start and end."""

import json
import re
from collections.abc import Mapping, Sequence

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
from pipelines.engines.executor import LeftRunning, StageOutcome


class StageDisplay:
    """Context manager. Reads what stages write to their progress files."""

    def __init__(self, total: int, noun: str = "stages") -> None:
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
        self.overall = self.progress.add_task(noun, total=total, text="")
        self.tasks: dict[str, TaskID] = {}
        self.places: dict[str, str] = {}

    def __enter__(self) -> "StageDisplay":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def refresh(self, running: Mapping[str, str]) -> None:
        """Announce the stages that have started, and where jobs of theirs are, and update the
        bars. `running`: stage -> what its executor says of it.
        """
        for name, where in running.items():
            self._update_place(name, where)
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
                    text=f"{state['text']} {where}".strip(),
                )

    def _update_place(self, name: str, where: str) -> None:
        """A line when a job is queued, starts or moves; its seconds are on the bar only."""
        steady = re.sub(r", \d+ s\b", "", where)
        if steady and self.places.get(name) != steady:
            self.places[name] = steady
            self._announce(name)
            self._print(f"{name}: {steady}")
        if where:
            self.progress.update(self.tasks[name], text=where)

    def report_outcome(self, name: str, outcome: StageOutcome) -> None:
        """Print how a stage ended."""
        if outcome.result != "unchanged":
            self._announce(name)
        seconds = "" if outcome.result == "unchanged" else f", {outcome.seconds:.1f} s"
        self.report_end(name, f"{name}: {outcome.result}{seconds}")
        if outcome.result == "ran":
            self._print_warnings(name)

    def report_end(self, name: str, text: str) -> None:
        """Print a line on what has ended."""
        self.finished += 1
        self._remove_bar(name)
        self._print(f"[{self.finished}/{self.total}] {text}")
        self.progress.update(self.overall, completed=self.finished)

    def report_failure(self, names: Sequence[str], error: Exception) -> None:
        """Print where the output of failed stages is; their error is raised at the end."""
        for name in names:
            self._remove_bar(name)
        if isinstance(error, LeftRunning):
            self._print(str(error))
            return
        reason = "stopped" if isinstance(error, RetryLater) else "failed"
        # A traceback is in no message: its last line says what it was.
        last = next((line.strip() for line in reversed(_read_log(names[0])) if line.strip()), "")
        is_known = not last or reason == "stopped" or last.removeprefix("error: ") in str(error)
        self._print(
            f"{', '.join(names)}: {reason}; its output is in {paths.stage_log(names[0])}"
            + ("" if is_known else f" and ends with: {last}")
        )

    def _print_warnings(self, name: str) -> None:
        for line in _read_log(name):
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


def _read_log(name: str) -> list[str]:
    log = paths.stage_log(name)
    return log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
