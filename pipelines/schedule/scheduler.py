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
from densecl.errors import STOPPED, Interrupted
from densecl.runtime.signals import SIGNALS
from pipelines import handover
from pipelines.outcome import csv_log
from pipelines.schedule.cron import trigger, zone
from pipelines.schemas import Finished, Outcome, Tick

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.base import BaseTrigger

RETRAINING = (sys.executable, "-m", "pipelines", "retraining")
LOOK = 30.0  # s between looks at the clock: a wait stands still while the machine sleeps
PATIENCE = 60.0  # s that a retraining may take to stop; its training takes up to 8


def run(cron: str, timezone: str | None, command: Sequence[str] = RETRAINING) -> None:
    """Retrain whenever `cron` says so, until SIGINT or SIGTERM; a ZenML stack that schedules by
    itself is handed the task.
    """
    where = zone(timezone)
    when = trigger(cron, where)
    load_params(paths.PARAMS)  # a mistake is told now, not in the night
    if handover.wanted():
        handover.hand_over(cron, where)
        return
    Scheduler(when, where, command).run()


class Scheduler:
    """APScheduler around one retraining at a time. Jobs live in memory; what is kept is
    reports/schedule.csv.
    """

    def __init__(self, when: BaseTrigger, where: tzinfo, command: Sequence[str]) -> None:
        self.when, self.where, self.command = when, where, command
        self.due: queue.SimpleQueue[datetime] = queue.SimpleQueue()
        self.starting = threading.Lock()
        self.ending = False
        self.child: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Until a signal; a retraining at work is stopped first, recorded, and caught up at the
        next start.
        """
        scheduler = self._scheduler()
        scheduler.start()
        try:
            for each in SIGNALS:
                signal.signal(each, _interrupt)
            while True:
                time.sleep(LOOK)
                scheduler.wakeup()
        except Interrupted as asked:
            _say(f"{asked}: ending; the next start catches up what is missed")
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)  # the second one ends it at once
            scheduler.pause()
            self._stop()
            scheduler.shutdown(wait=True)

    def _scheduler(self) -> BackgroundScheduler:
        from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_SUBMITTED
        from apscheduler.schedulers.background import BackgroundScheduler

        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        scheduler, first = (
            BackgroundScheduler(timezone=self.where),
            self.first(datetime.now(self.where)),
        )
        self._tell_next(first)
        scheduler.add_job(
            self._tick,
            self.when,
            next_run_time=first,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,  # one catch-up; no overlap; however late
        )
        scheduler.add_listener(
            lambda event: self.due.put(event.scheduled_run_times[-1]), EVENT_JOB_SUBMITTED
        )
        scheduler.add_listener(self._skip, EVENT_JOB_MAX_INSTANCES)
        return scheduler

    def first(self, now: datetime) -> datetime:
        """The tick to begin with: the one that was stopped, or the first since the last recorded
        one; in the past, if missed.
        """
        ticks = [
            t for t in csv_log.read(paths.TICKS, Tick) if _time(t.scheduled) <= now
        ]  # a clock may be set back
        if not ticks:
            return self.when.get_next_fire_time(None, now)
        began = [t for t in ticks if t.status is not None]
        if began and began[-1].outcome == "failed" and began[-1].status == STOPPED:
            return _time(began[-1].scheduled).astimezone(self.where)
        latest = max(_time(t.scheduled) for t in ticks).astimezone(self.where)
        return self.when.get_next_fire_time(latest, latest)

    def _tick(self) -> None:
        scheduled = self.due.get()
        started, clock = datetime.now(self.where), time.monotonic()
        late = started - scheduled
        _say(
            f"{_shown(scheduled)}: retraining"
            + (f", {late} late" if late.total_seconds() > LOOK else "")
        )
        ended = self._retrain(started)
        if ended is not None:
            self._record(scheduled, started, time.monotonic() - clock, *ended)
            now = datetime.now(self.where)
            if not self.ending:
                self._tell_next(self.when.get_next_fire_time(now, now))

    def _retrain(self, started: datetime) -> tuple[Outcome, int | None, str] | None:
        """How it ended; None where the scheduler ends before it began, so that the tick counts as
        missed.
        """
        with self.starting:
            if self.ending:
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
        said = ""
        for line in self.child.stderr or ():
            sys.stderr.write(line)
            said = line.removeprefix("error: ").strip() if line.startswith("error: ") else said
        return outcome(self.child.wait(), started, said, self.ending)

    def _stop(self) -> None:
        with self.starting:
            self.ending = True
        if self.child is None or self.child.poll() is not None:
            return
        self.child.terminate()
        try:
            self.child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)

    def _skip(self, event: Any) -> None:
        self._record(
            event.scheduled_run_times[-1],
            datetime.now(self.where),
            0,
            "skipped",
            None,
            "one was still at work",
        )

    def _record(
        self,
        scheduled: datetime,
        started: datetime,
        seconds: float,
        outcome: Outcome,
        status: int | None,
        detail: str,
    ) -> None:
        csv_log.append(
            paths.TICKS,
            Tick(
                scheduled=scheduled.isoformat(timespec="seconds"),
                started=started.isoformat(timespec="seconds"),
                seconds=round(seconds, 1),
                outcome=outcome,
                status=status,
                detail=detail,
            ),
        )
        _say(f"{_shown(scheduled)}: {outcome} after {seconds:.0f} s: {detail}")

    def _tell_next(self, due: datetime) -> None:
        _say(f"next: {_shown(due)} ({self.where})")


def outcome(status: int, started: datetime, said: str, stopped: bool) -> tuple[Outcome, int, str]:
    """Outcome, exit status and a sentence of a retraining that began at `started`: what it recorded
    itself, else what its status tells. 75 without a record of its own means that it did not begin,
    since another one is at work.
    """
    records = [
        r
        for r in csv_log.read(paths.RETRAININGS, Finished)
        if _time(r.started) >= started.replace(microsecond=0)
    ]
    if records:
        return records[-1].outcome, status, records[-1].said
    if status == STOPPED and not stopped:
        return "skipped", status, said or "it did not begin"
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return "failed", status, said or f"it ended {how} and recorded nothing"


def _interrupt(number: int, _: object) -> None:
    raise Interrupted(signal.Signals(number).name)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _shown(when: datetime) -> str:
    return f"{when:%a %d %b %Y %H:%M:%S %Z}"


def _say(text: str) -> None:
    print(text, flush=True)
