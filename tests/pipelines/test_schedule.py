"""The scheduler's ticks: what comes of them, what is caught up, what is skipped, and how it
ends.
"""

import csv
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from densecl import paths
from densecl.errors import DenseclError
from pipelines.outcome import csv_log
from pipelines.schedule.cron import CronSchedule, parse_timezone
from pipelines.schedule.scheduler import Scheduler, read_outcome
from pipelines.schemas import RetrainingRecord, Tick
from tests.training.training_project import ENVIRONMENT, ROOT

PARIS = ZoneInfo("Europe/Paris")
SECONDLY = "* * * * * *"
RUN = "import sys; from pipelines.schedule.scheduler import run_schedule; run_schedule(sys.argv[1], 'Europe/Paris', [sys.executable, '-c', sys.argv[2]])"
ENDS = """
import os, pathlib, sys
from datetime import datetime
def end(outcome, said, status=0):
    path = pathlib.Path("reports/retraining.csv")
    head = "" if path.exists() else "started,seconds,outcome,said,version,champion,zenml_run,git\\n"
    with path.open("a") as file:
        file.write(f"{head}{datetime.now().astimezone().isoformat(timespec='seconds')},1.0,{outcome},{said},,,,\\n")
    sys.exit(status)
"""
IN_TURN = ENDS + (
    "count = len(list(pathlib.Path('.').glob('begun-*'))); pathlib.Path(f'begun-{count}').touch()\n"
    "end(('promoted', 'rejected', 'unchanged')[count % 3], f'number {count}')"
)
STOPS = ENDS + (
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: end('failed', 'stopped at a checkpoint', 75))\n"
    "pathlib.Path('begun.new').write_text(str(os.getpid())); os.rename('begun.new', 'begun'); time.sleep(60)"
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("reports").mkdir()
    Path("params.yaml").write_text((ROOT / "tests/small.yaml").read_text())
    return tmp_path


@contextmanager
def scheduler(cron: str, retraining: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", RUN, cron, retraining],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(found, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, csv_log.read_records(paths.SCHEDULE_LOG, Tick)
        time.sleep(0.05)


def ticks() -> list[Tick]:
    return csv_log.read_records(paths.SCHEDULE_LOG, Tick)


def ran() -> list[Tick]:
    """On a busy machine one may be skipped between them."""
    return [t for t in ticks() if t.status is not None]


def ended(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    return said


@pytest.mark.slow
def test_three_ticks_of_a_fast_cron(project):
    with scheduler("*/2 * * * * *", IN_TURN) as process:
        until(lambda: len(ran()) >= 3)
        said = ended(process)
    assert [(t.outcome, t.detail) for t in ran()][:3] == [
        ("promoted", "number 0"),
        ("rejected", "number 1"),
        ("unchanged", "number 2"),
    ]
    scheduled = [datetime.fromisoformat(t.scheduled) for t in ran()]
    assert all(time.second % 2 == 0 for time in scheduled)
    assert all(b > a for a, b in itertools.pairwise(scheduled))
    assert said.startswith("next: ")
    assert "(Europe/Paris)" in said
    assert "SIGTERM: stopped" in said
    rows = list(csv.reader(paths.SCHEDULE_LOG.read_text().splitlines()))
    assert {len(row) for row in rows} == {len(Tick.model_fields)}


@pytest.mark.slow
def test_ticks_that_pass_during_a_retraining_are_skipped_in_one_line(project):
    with scheduler(SECONDLY, "import time; time.sleep(2.5)\n" + IN_TURN) as process:
        until(lambda: len(ticks()) >= 2)
        ended(process)
    first, second = ticks()[:2]
    assert (first.outcome, second.outcome) == ("promoted", "skipped")
    assert "still running" in second.detail
    assert second.status is None
    assert second.scheduled > first.scheduled


@pytest.mark.slow
def test_sigterm_stops_the_retraining_and_the_next_start_catches_up(project):
    with scheduler(SECONDLY, STOPS) as process:
        until(Path("begun").exists)
        ended(process)
    stopped = [t for t in ticks() if t.outcome == "failed"]
    assert [(t.status, t.detail) for t in stopped] == [(75, "stopped at a checkpoint")]
    yearly = "0 0 1 1 *"
    with scheduler(yearly, IN_TURN) as process:
        until(lambda: ran()[-1].outcome == "promoted")
        ended(process)
    assert ran()[-1].scheduled == stopped[0].scheduled


def test_many_missed_ticks_are_caught_up_in_one(project):
    now = datetime.now(PARIS)
    record(now - timedelta(hours=5), "rejected", 0)
    last = (now - timedelta(minutes=30)).replace(second=0, microsecond=0)
    with scheduler(f"{last.minute} * * * *", IN_TURN) as process:  # the next is in half an hour
        until(lambda: len(ticks()) == 2)
        time.sleep(0.5)
        assert " late" in ended(process)
    assert len(ticks()) == 2
    assert datetime.fromisoformat(ticks()[-1].scheduled) == last


def test_killed_at_once_the_tick_counts_as_missed(project):
    with scheduler(SECONDLY, STOPS) as process:
        until(Path("begun").exists)
        process.kill()
        process.wait()
    os.kill(
        int(Path("begun").read_text()), signal.SIGTERM
    )  # it goes on by itself, and records itself
    until(paths.RETRAINING_LOG.exists)
    assert ticks() == []  # so the next start catches it up


def record(scheduled: datetime, outcome: str, status: int | None) -> None:
    text = scheduled.isoformat(timespec="seconds")
    csv_log.append_record(
        paths.SCHEDULE_LOG,
        Tick(scheduled=text, started=text, seconds=1, outcome=outcome, status=status, detail=""),
    )


def test_the_first_tick_of_a_start(project):
    made = Scheduler(CronSchedule("0 3 * * 1", PARIS), [])
    tuesday = datetime(2026, 1, 6, 12, tzinfo=PARIS)
    monday = datetime(2026, 1, 5, 3, tzinfo=PARIS)
    assert made.find_first_tick(tuesday) == monday + timedelta(
        days=7
    )  # the first start misses nothing
    record(monday - timedelta(days=14), "rejected", 0)
    assert made.find_first_tick(tuesday) == monday - timedelta(days=7)  # the scheduler was down
    record(monday, "failed", 2)
    assert made.find_first_tick(tuesday) == monday + timedelta(
        days=7
    )  # a mistake is not tried again before its time
    for status in (75, -signal.SIGTERM):  # the latter came while it was still importing
        record(monday, "failed", 2)
        record(monday, "failed", status)
        record(monday, "skipped", None)
        assert made.find_first_tick(tuesday) == monday
    record(monday.replace(year=2099), "rejected", 0)
    assert made.find_first_tick(tuesday) == monday  # the clock was wrong


@pytest.mark.parametrize(
    ("status", "said", "stopped", "expected"),
    [
        (0, "", False, ("failed", 0, "it ended with status 0 and recorded nothing")),
        (2, "params.yaml: unknown key", False, ("failed", 2, "params.yaml: unknown key")),
        (75, "another pipeline is at work", False, ("skipped", 75, "another pipeline is at work")),
        (75, "", True, ("failed", 75, "it ended with status 75 and recorded nothing")),
        (-9, "", False, ("failed", -9, "it ended by SIGKILL and recorded nothing")),
    ],
)
def test_a_retraining_without_a_record_is_judged_by_its_status(
    project, status, said, stopped, expected
):
    now = datetime.now(UTC)
    before = RetrainingRecord(
        started=(now - timedelta(minutes=1)).isoformat(),
        seconds=1,
        outcome="promoted",
        said="another",
    )
    csv_log.append_record(paths.RETRAINING_LOG, before)
    assert read_outcome(status, now, said, stopped) == expected


def test_a_command_that_is_not_there_fails_the_tick(project):
    made = Scheduler(CronSchedule(SECONDLY, PARIS), ["/nowhere/python"])
    assert made._run_retraining(datetime.now(PARIS))[:2] == ("failed", None)


def test_an_incomplete_line_is_skipped(tmp_path):
    path = tmp_path / "schedule.csv"
    one = Tick(
        scheduled="a",
        started="b",
        seconds=1,
        outcome="rejected",
        status=None,
        detail='two\nlines, "quoted"',
    )
    csv_log.append_record(path, one)
    with path.open("a") as file:
        file.write("2026-01-05T03:00:00+01:00,2026")  # the disk was full
    assert len(csv_log.read_records(path, Tick)) == 1
    csv_log.append_record(path, one)
    assert [t.detail for t in csv_log.read_records(path, Tick)] == ['two lines, "quoted"'] * 2


def test_a_pipe_in_place_of_the_log_is_one_line(tmp_path):
    """Opening it would wait for its other end, with the project locked."""
    path = tmp_path / "schedule.csv"
    os.mkfifo(path)
    for use in (
        lambda: csv_log.read_records(path, Tick),
        lambda: csv_log.append_record(path, Tick.model_construct()),
    ):
        with pytest.raises(DenseclError, match=r"schedule.csv: found no plain file; move it away"):
            use()


def test_a_file_from_before_version_0_2_is_read(tmp_path):
    path = tmp_path / "schedule.csv"
    path.write_text("scheduled,started,seconds,outcome,status,detail\na,b,1.0,kept,0,old\n")
    assert [t.outcome for t in csv_log.read_records(path, Tick)] == ["rejected"]


def fires(expression: str, count: int, start: datetime) -> list[str]:
    schedule, found, now = CronSchedule(expression, PARIS), [], start
    for _ in range(count):
        now = schedule.find_next(now)
        found.append(f"{now:%a %d %H:%M:%S}")
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 3 * * 1", ["Mon 05 03:00:00", "Mon 12 03:00:00"]),
        ("0 3 * * 0", ["Sun 04 03:00:00", "Sun 11 03:00:00"]),
        ("0 3 * * 7", ["Sun 04 03:00:00", "Sun 11 03:00:00"]),
        (
            "0 3 * * 5-7",
            ["Fri 02 03:00:00", "Sat 03 03:00:00", "Sun 04 03:00:00", "Fri 09 03:00:00"],
        ),
        (
            "0 3 * * sat-mon",
            ["Sat 03 03:00:00", "Sun 04 03:00:00", "Mon 05 03:00:00", "Sat 10 03:00:00"],
        ),
        (
            "0 0 13 * 5",
            ["Fri 02 00:00:00", "Fri 09 00:00:00", "Tue 13 00:00:00"],
        ),  # either, as cron has it
        ("*/20 * * * * *", ["Thu 01 00:00:20", "Thu 01 00:00:40", "Thu 01 00:01:00"]),
    ],
)
def test_cron_lines_mean_what_they_mean_to_cron(expression, expected):
    assert fires(expression, len(expected), datetime(2026, 1, 1, tzinfo=PARIS)) == expected


def find_daily_tick(day: datetime, zone: ZoneInfo) -> datetime:
    """Reference: the first instant at or after the wall time, found minute by minute in UTC."""
    instant = day.replace(tzinfo=zone).astimezone(UTC) - timedelta(hours=3)
    while instant.astimezone(zone).replace(tzinfo=None) < day:
        instant += timedelta(minutes=1)
    return instant


@pytest.mark.parametrize("hour", range(24))
@pytest.mark.parametrize(
    ("zone", "days"),
    [
        ("Europe/Paris", ("2026-03-28", "2026-10-24")),
        ("America/New_York", ("2026-03-07", "2026-10-31")),
        ("Australia/Lord_Howe", ("2026-10-03", "2026-04-04")),  # by half an hour
    ],
)
def test_each_hour_of_the_day_fires_once_a_day_around_both_changes_of_clocks(zone, days, hour):
    place = ZoneInfo(zone)
    for minute in (0, 30):
        schedule = CronSchedule(f"{minute} {hour} * * *", place)
        for start in days:
            day = datetime.fromisoformat(start) + timedelta(hours=hour, minutes=minute)
            now = find_daily_tick(day, place) - timedelta(minutes=1)
            for offset in range(4):
                now = schedule.find_next(now)
                expected = find_daily_tick(day + timedelta(days=offset), place)
                assert now.astimezone(UTC) == expected, (start, offset)


def test_midnight_of_the_monday_after_the_spring_change_is_not_lost():
    monday = datetime(2026, 3, 30, tzinfo=PARIS)
    schedule = CronSchedule("0 0 * * 1", PARIS)
    assert schedule.find_next(datetime(2026, 3, 27, 12, tzinfo=PARIS)) == monday
    assert schedule.find_next(monday - timedelta(days=7)) == monday


def test_a_missed_midnight_after_the_spring_change_is_caught_up(project):
    record(datetime(2026, 3, 23, tzinfo=PARIS), "rejected", 0)
    first = Scheduler(CronSchedule("0 0 * * 1", PARIS), []).find_first_tick(
        datetime(2026, 4, 2, tzinfo=PARIS)
    )
    assert first == datetime(2026, 3, 30, tzinfo=PARIS)


def test_an_hourly_schedule_fires_in_both_hours_that_the_autumn_change_repeats():
    assert fires("30 * * * *", 4, datetime(2026, 10, 25, 1, tzinfo=PARIS)) == [
        "Sun 25 01:30:00",
        "Sun 25 02:30:00",
        "Sun 25 02:30:00",
        "Sun 25 03:30:00",
    ]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("0 3 * *", "expected five fields"),
        ("0 3 * * 8", "out of range"),
        ("0 0 31 2 *", "failed to find next date"),
        ("@weekly", "expected five fields"),
        ("0 3 * * mno", "not acceptable"),
    ],
)
def test_a_cron_line_that_is_none_is_refused(expression, said):
    with pytest.raises(DenseclError, match=said):
        CronSchedule(expression, PARIS)


def test_a_zone_that_is_none_is_refused_with_the_closest():
    with pytest.raises(DenseclError, match="did you mean Europe/Paris"):
        parse_timezone("Europe/Pari")
    with pytest.raises(DenseclError, match="expected a name like"):
        parse_timezone("/etc/passwd")
