"""One display of all running stages: bars on a terminal, and their lines with the stage's name."""

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
from pipelines.engine.executor import StageOutcome


class StageDisplay:
    """Context manager. Reads what stages write to their log and progress files."""

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
        self.positions: dict[str, int] = {}  # bytes of each log that are printed

    def __enter__(self) -> "StageDisplay":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def refresh(self, running: Iterable[str]) -> None:
        """Update the bars, and print new lines of the running stages."""
        for name in running:
            progress_file = paths.stage_progress_file(name)
            if not progress_file.exists():
                continue  # not started, or it has nothing to do
            if name not in self.tasks:
                self.tasks[name] = self.progress.add_task(name, total=None, text="")
                self._print(f"{name} ...")
            self._print_new_lines(name)
            try:
                state = json.loads(progress_file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue  # still empty, or removed meanwhile
            self.progress.update(
                self.tasks[name], completed=state["done"], total=state["total"], text=state["text"]
            )

    def report_outcome(self, name: str, outcome: StageOutcome) -> None:
        """Print how a stage ended."""
        self.finished += 1
        self._close(name)
        seconds = "" if outcome.result == "unchanged" else f", {outcome.seconds:.1f} s"
        self._print(f"[{self.finished}/{self.total}] {name}: {outcome.result}{seconds}")
        self.progress.update(self.overall, completed=self.finished)

    def report_failure(self, name: str) -> None:
        """Print where the output of a failed stage is; its error is raised at the end."""
        self._close(name)
        self._print(f"{name}: failed; its output is in {paths.stage_log(name)}")

    def _close(self, name: str) -> None:
        if name in self.tasks:
            self._print_new_lines(name)
            self.progress.remove_task(self.tasks.pop(name))

    def _print_new_lines(self, name: str) -> None:
        with paths.stage_log(name).open("rb") as file:
            file.seek(self.positions.get(name, 0))
            text = file.read()
        complete = text[: text.rfind(b"\n") + 1]
        self.positions[name] = self.positions.get(name, 0) + len(complete)
        for line in complete.decode("utf-8", "replace").splitlines():
            self._print(f"{name} | {line}")

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
