"""Scheduled retraining: a loop in the foreground that adds one line per tick to
reports/schedule.csv.

Each retraining is a process of its own, so that the loop stays small for weeks and survives
whatever happens there; since the loop waits for it, two never overlap.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from densecl import paths
from densecl.config.params import load_params
from densecl.errors import EXIT_RETRY
from densecl.runtime.signals import STOP_SIGNALS
from pipelines.outcome import csv_log
from pipelines.schedule.cron import CronSchedule, parse_timezone
from pipelines.schemas import Outcome, RetrainingRecord, Tick

_print_line = partial(print, flush=True)
RETRAINING = (sys.executable, "-m", "pipelines", "retraining")
POLL_INTERVAL = 0.2  # seconds between checks of the clock, the signals and the retraining
LATE = 30.0  # seconds after which a tick is called late
STOP_TIMEOUT = 60.0  # seconds that a retraining may take to stop; its training takes up to 8


def run_schedule(cron: str, timezone: str | None, command: Sequence[str] = RETRAINING) -> None:
    """Retrain at every tick of `cron`, until SIGINT or SIGTERM."""
    schedule = CronSchedule(cron, parse_timezone(timezone))
    load_params(paths.PARAMS)  # report errors now rather than at night
    Scheduler(schedule, command).run_until_signal()


class Scheduler:
    """Runs one retraining per tick. All state is in reports/schedule.csv."""

    def __init__(self, schedule: CronSchedule, command: Sequence[str]) -> None:
        self.schedule, self.command = schedule, command
        self.signal: signal.Signals | None = None  # the one that asked to stop

    def run_until_signal(self) -> None:
        """Run ticks until a signal arrives. A running retraining is stopped first and recorded; the
        next start catches it up.
        """
        for signal_number in STOP_SIGNALS:
            signal.signal(signal_number, self._request_stop)
        due = self._merge_missed(self.find_first_tick(_now()))
        while self._wait_until(due):
            self._run_tick(due)
            if not self.signal:
                due = self._skip_missed(due)
        if self.signal:
            _print_line(f"{self.signal.name}: stopped; the next start catches up missed ticks")

    def find_first_tick(self, now: datetime) -> datetime:
        """The tick that was stopped, or the first one since the last recorded tick: in the past if
        it was missed.
        """
        ticks = [
            tick
            for tick in csv_log.read_records(paths.SCHEDULE_LOG, Tick)
            if datetime.fromisoformat(tick.scheduled) <= now  # a clock may be set back
        ]
        if not ticks:
            return self.schedule.find_next(now)
        started = [tick for tick in ticks if tick.status is not None]
        if started and started[-1].outcome == "failed" and _was_stopped(started[-1].status):
            return datetime.fromisoformat(started[-1].scheduled).astimezone(self.schedule.timezone)
        return self.schedule.find_next(
            max(datetime.fromisoformat(tick.scheduled) for tick in ticks)
        )

    def _wait_until(self, due: datetime) -> bool:
        """Sleep until `due` by the wall clock; False if a signal arrives before."""
        _print_line(f"next: {_format_time(due)} ({self.schedule.timezone})")
        while not self.signal and (left := (due - _now()).total_seconds()) > 0:
            time.sleep(min(left, POLL_INTERVAL))
        return self.signal is None

    def _run_tick(self, scheduled: datetime) -> None:
        started, start_clock = _now(), time.monotonic()
        delay = started - scheduled
        late = f", {delay} late" if delay.total_seconds() > LATE else ""
        _print_line(f"{_format_time(scheduled)}: retraining{late}")
        result = self._run_retraining(started)
        self._record_tick(scheduled, started, time.monotonic() - start_clock, *result)

    def _run_retraining(self, started: datetime) -> tuple[Outcome, int | None, str]:
        """Outcome, exit status and message of one retraining."""
        try:
            child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                process_group=0,  # Ctrl-C reaches only the scheduler, which passes it on once
            )
        except OSError as error:
            return "failed", None, f"could not be started: {error}"
        errors: list[str] = []
        reader = threading.Thread(target=_forward_errors, args=(child, errors), daemon=True)
        reader.start()
        while child.poll() is None and not self.signal:
            time.sleep(POLL_INTERVAL)
        was_stopped = child.poll() is None
        if was_stopped:
            _stop_child(child)
        status = child.wait()
        reader.join(POLL_INTERVAL)  # a grandchild may hold the pipe open
        return read_outcome(status, started, errors[-1] if errors else "", was_stopped)

    def _merge_missed(self, due: datetime) -> datetime:
        """The last missed tick: one retraining catches up on all of them."""
        while (following := self.schedule.find_next(due)) <= _now():
            due = following
        return due

    def _skip_missed(self, ran: datetime) -> datetime:
        """The next future tick; those that passed during the retraining are recorded in one
        line.
        """
        due, now = self.schedule.find_next(ran), _now()
        if due <= now:
            detail = "another retraining was still running, also for all later ticks until then"
            self._record_tick(due, now, 0, "skipped", None, detail)
            due = self.schedule.find_next(now)
        return due

    def _record_tick(
        self,
        scheduled: datetime,
        started: datetime,
        seconds: float,
        outcome: Outcome,
        status: int | None,
        detail: str,
    ) -> None:
        tick = Tick(
            scheduled=scheduled.isoformat(timespec="seconds"),
            started=started.astimezone(self.schedule.timezone).isoformat(timespec="seconds"),
            seconds=round(seconds, 1),
            outcome=outcome,
            status=status,
            detail=detail,
        )
        csv_log.append_record(paths.SCHEDULE_LOG, tick)
        _print_line(f"{_format_time(scheduled)}: {outcome} after {seconds:.0f} s: {detail}")

    def _request_stop(self, signal_number: int, _: object) -> None:
        self.signal = signal.Signals(signal_number)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once


def _now() -> datetime:
    """In UTC: differences of times in one zone ignore a change of clocks between them."""
    return datetime.now(UTC)


def _forward_errors(child: subprocess.Popen[str], errors: list[str]) -> None:
    """Copy the child's stderr to ours and collect its error messages."""
    for line in child.stderr or ():
        sys.stderr.write(line)
        if line.startswith("error: "):
            errors.append(line.removeprefix("error: ").strip())


def _stop_child(child: subprocess.Popen[str]) -> None:
    """Ask the retraining to stop at a checkpoint; kill its process group if it takes too long."""
    child.terminate()
    try:
        child.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _was_stopped(status: int | None) -> bool:
    """True for status 75, and for a signal before the retraining could handle it (negative)."""
    return status is not None and (status == EXIT_RETRY or status < 0)


def read_outcome(
    status: int, started: datetime, message: str, was_stopped: bool
) -> tuple[Outcome, int, str]:
    """Outcome, exit status and message of a retraining that began at `started`: from its own
    record, otherwise from its exit status. Status 75 without a record means that it did not start,
    because another pipeline was running.
    """
    records = [
        r
        for r in csv_log.read_records(paths.RETRAINING_LOG, RetrainingRecord)
        if datetime.fromisoformat(r.started) >= started.replace(microsecond=0)
    ]
    if records:
        return records[-1].outcome, status, records[-1].said
    if status == EXIT_RETRY and not was_stopped:
        return "skipped", status, message or "it did not start"
    cause = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return "failed", status, message or f"it ended {cause} and recorded nothing"


def _format_time(moment: datetime) -> str:
    return f"{moment:%a %d %b %Y %H:%M:%S %Z}"
