"""Retraining by the clock: a scheduler in the foreground, a line in reports/schedule.csv for each
of its ticks.

Each retraining is a process of its own, so that this one stays small for weeks and outlives
whatever happens there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any

from densecl import paths
from densecl.config.params import load_params
from densecl.errors import EXIT_RETRY, Interrupted
from densecl.runtime.signals import STOP_SIGNALS
from pipelines import handover
from pipelines.outcome import csv_log
from pipelines.schedule.cron import build_trigger, parse_timezone
from pipelines.schemas import Outcome, RetrainingRecord, Tick

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.base import BaseTrigger

RETRAINING = (sys.executable, "-m", "pipelines", "retraining")
WAKEUP_INTERVAL = 30.0  # s between looks at the clock: a wait stands still while the machine sleeps
STOP_TIMEOUT = 60.0  # s that a retraining may take to stop; its training takes up to 8


def run_schedule(cron: str, timezone: str | None, command: Sequence[str] = RETRAINING) -> None:
    """Retrain whenever `cron` says so, until SIGINT or SIGTERM; a ZenML stack that schedules by
    itself is handed the task.
    """
    zone = parse_timezone(timezone)
    trigger = build_trigger(cron, zone)
    load_params(paths.PARAMS)  # a mistake is told now, not in the night
    if handover.wanted():
        handover.hand_over(cron, zone)
        return
    Scheduler(trigger, zone, command).run_until_signal()


class Scheduler:
    """APScheduler around one retraining at a time. Jobs live in memory; what is kept is
    reports/schedule.csv.
    """

    def __init__(self, trigger: BaseTrigger, timezone: tzinfo, command: Sequence[str]) -> None:
        self.trigger, self.timezone, self.command = trigger, timezone, command
        self.due: queue.SimpleQueue[datetime] = queue.SimpleQueue()
        self.start_lock = threading.Lock()
        self.is_stopping = False
        self.child: subprocess.Popen[str] | None = None

    def run_until_signal(self) -> None:
        """Until a signal; a retraining at work is stopped first, recorded, and caught up at the
        next start.
        """
        scheduler = self._build_scheduler()
        scheduler.start()
        try:
            for signal_number in STOP_SIGNALS:
                signal.signal(signal_number, _raise_interrupted)
            while True:
                time.sleep(WAKEUP_INTERVAL)
                scheduler.wakeup()
        except Interrupted as interruption:
            _print_line(f"{interruption}: ending; the next start catches up what is missed")
            for signal_number in STOP_SIGNALS:
                signal.signal(signal_number, signal.SIG_DFL)  # the second one ends it at once
            scheduler.pause()
            self._stop_child()
            scheduler.shutdown(wait=True)

    def _build_scheduler(self) -> BackgroundScheduler:
        from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_SUBMITTED
        from apscheduler.schedulers.background import BackgroundScheduler

        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        scheduler, first_tick = (
            BackgroundScheduler(timezone=self.timezone),
            self.find_first_tick(datetime.now(self.timezone)),
        )
        self._print_next(first_tick)
        scheduler.add_job(
            self._run_tick,
            self.trigger,
            next_run_time=first_tick,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,  # one catch-up; no overlap; however late
        )
        scheduler.add_listener(
            lambda event: self.due.put(event.scheduled_run_times[-1]), EVENT_JOB_SUBMITTED
        )
        scheduler.add_listener(self._record_skip, EVENT_JOB_MAX_INSTANCES)
        return scheduler

    def find_first_tick(self, now: datetime) -> datetime:
        """The tick to begin with: the one that was stopped, or the first since the last recorded
        one; in the past, if missed.
        """
        ticks = [
            t
            for t in csv_log.read_records(paths.SCHEDULE_LOG, Tick)
            if _parse_time(t.scheduled) <= now
        ]  # a clock may be set back
        if not ticks:
            return self.trigger.get_next_fire_time(None, now)
        started = [t for t in ticks if t.status is not None]
        if started and started[-1].outcome == "failed" and started[-1].status == EXIT_RETRY:
            return _parse_time(started[-1].scheduled).astimezone(self.timezone)
        latest = max(_parse_time(t.scheduled) for t in ticks).astimezone(self.timezone)
        return self.trigger.get_next_fire_time(latest, latest)

    def _run_tick(self) -> None:
        scheduled = self.due.get()
        started, start_clock = datetime.now(self.timezone), time.monotonic()
        delay = started - scheduled
        _print_line(
            f"{_format_time(scheduled)}: retraining"
            + (f", {delay} late" if delay.total_seconds() > WAKEUP_INTERVAL else "")
        )
        result = self._run_retraining(started)
        if result is not None:
            self._record_tick(scheduled, started, time.monotonic() - start_clock, *result)
            now = datetime.now(self.timezone)
            if not self.is_stopping:
                self._print_next(self.trigger.get_next_fire_time(now, now))

    def _run_retraining(self, started: datetime) -> tuple[Outcome, int | None, str] | None:
        """How it ended; None where the scheduler ends before it began, so that the tick counts as
        missed.
        """
        with self.start_lock:
            if self.is_stopping:
                return None
            try:
                self.child = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    encoding="utf-8",
                    errors="replace",
                    process_group=0,  # Ctrl-C is ours to pass on, once
                )
            except OSError as error:
                return "failed", None, f"could not be started: {error}"
        message = ""
        for line in self.child.stderr or ():
            sys.stderr.write(line)
            message = (
                line.removeprefix("error: ").strip() if line.startswith("error: ") else message
            )
        return read_outcome(self.child.wait(), started, message, self.is_stopping)

    def _stop_child(self) -> None:
        with self.start_lock:
            self.is_stopping = True
        if self.child is None or self.child.poll() is not None:
            return
        self.child.terminate()
        try:
            self.child.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)

    def _record_skip(self, event: Any) -> None:
        self._record_tick(
            event.scheduled_run_times[-1],
            datetime.now(self.timezone),
            0,
            "skipped",
            None,
            "one was still at work",
        )

    def _record_tick(
        self,
        scheduled: datetime,
        started: datetime,
        seconds: float,
        outcome: Outcome,
        status: int | None,
        detail: str,
    ) -> None:
        csv_log.append_record(
            paths.SCHEDULE_LOG,
            Tick(
                scheduled=scheduled.isoformat(timespec="seconds"),
                started=started.isoformat(timespec="seconds"),
                seconds=round(seconds, 1),
                outcome=outcome,
                status=status,
                detail=detail,
            ),
        )
        _print_line(f"{_format_time(scheduled)}: {outcome} after {seconds:.0f} s: {detail}")

    def _print_next(self, due: datetime) -> None:
        _print_line(f"next: {_format_time(due)} ({self.timezone})")


def read_outcome(
    status: int, started: datetime, message: str, was_stopped: bool
) -> tuple[Outcome, int, str]:
    """Outcome, exit status and a sentence of a retraining that began at `started`: what it recorded
    itself, else what its status tells. 75 without a record of its own means that it did not begin,
    since another one is at work.
    """
    records = [
        r
        for r in csv_log.read_records(paths.RETRAINING_LOG, RetrainingRecord)
        if _parse_time(r.started) >= started.replace(microsecond=0)
    ]
    if records:
        return records[-1].outcome, status, records[-1].said
    if status == EXIT_RETRY and not was_stopped:
        return "skipped", status, message or "it did not begin"
    cause = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return "failed", status, message or f"it ended {cause} and recorded nothing"


def _raise_interrupted(signal_number: int, _: object) -> None:
    raise Interrupted(signal.Signals(signal_number).name)


def _parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _format_time(moment: datetime) -> str:
    return f"{moment:%a %d %b %Y %H:%M:%S %Z}"


def _print_line(text: str) -> None:
    print(text, flush=True)
