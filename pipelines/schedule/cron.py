"""When a schedule is due: cron lines as cron itself reads them, in a named time zone."""

from __future__ import annotations

import difflib
import re
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, available_timezones

from densecl.errors import DenseclError

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

FIELDS = ("minute", "hour", "day", "month", "day_of_week")
WEEKDAYS = (
    "sun",
    "mon",
    "tue",
    "wed",
    "thu",
    "fri",
    "sat",
    "sun",
)  # cron's numbers: 0 and 7 are Sunday
EXPECTED = (
    "expected five fields (minute hour day month weekday), "
    "or six with seconds first, e.g. '0 3 * * 1'"
)


def parse_timezone(name: str | None) -> tzinfo:
    """The zone of that name; None: this machine's own."""
    from tzlocal import get_localzone

    if name is None:
        return get_localzone()
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # no such zone, a folder of zones, an absolute path
        matches = difflib.get_close_matches(name, available_timezones(), 1)
        hint = (
            f"did you mean {matches[0]}?" if matches else "expected a name like Europe/Paris or UTC"
        )
        if not available_timezones():
            hint = "this machine has no time zone database: install its tzdata package"
        raise DenseclError(f"--timezone: found {name!r}; {hint}") from None


def split_fields(expression: str) -> list[str]:
    """Seconds, minute, hour, day, month, weekday; DenseclError where there are not five or six."""
    parts = expression.split()
    if len(parts) not in {5, 6}:
        raise DenseclError(f"--cron: found {expression!r}, {EXPECTED}")
    return ["0"] * (6 - len(parts)) + parts


def build_trigger(expression: str, timezone: tzinfo) -> BaseTrigger:
    """Fires when cron would: weekday 0 is Sunday, and where day and weekday are both restricted
    either of them is enough.

    APScheduler's own `from_crontab` counts weekdays from Monday and wants both to match.
    """
    from apscheduler.triggers.combining import OrTrigger
    from apscheduler.triggers.cron import CronTrigger

    second, *rest = split_fields(expression)
    try:
        cron_fields = dict(zip(FIELDS, (*rest[:4], normalise_weekdays(rest[4])), strict=True))
        rules = [cron_fields]
        if not cron_fields["day"].startswith("*") and not rest[4].startswith("*"):
            rules = [cron_fields | {"day": "*"}, cron_fields | {"day_of_week": "*"}]
        combined = OrTrigger(
            [CronTrigger(second=second, timezone=timezone, **rule) for rule in rules]
        )
    except ValueError as error:
        raise DenseclError(
            f"--cron: found {expression!r}: {' '.join(str(error).split())}; {EXPECTED}"
        ) from None
    if combined.get_next_fire_time(None, datetime.now(timezone)) is None:
        raise DenseclError(f"--cron: found {expression!r}, a date that never comes")
    return combined


def normalise_weekdays(field: str) -> str:
    """Cron's weekday field with names for numbers: `1-5` is mon,tue,wed,thu,fri and `*/2`
    sun,tue,thu,sat.
    """
    return ",".join(_parse_weekday_part(part) for part in field.lower().split(","))


def _parse_weekday_part(part: str) -> str:
    match = re.fullmatch(r"(\*|[0-7]|[a-z]{3})(?:-([0-7]|[a-z]{3}))?(?:/([1-9]))?", part)
    if part == "*" or not match:
        return part  # APScheduler says what is wrong with it
    first, last, step = match.groups()
    start = 0 if first == "*" else _parse_weekday(first)
    end = 6 if first == "*" or (step and not last) else _parse_weekday(last or first)
    if end < start:
        end += 7 if last and last.isalpha() and start else 0
    if end < start:
        raise ValueError(f"weekdays {part} end before they begin")
    return ",".join(
        dict.fromkeys(WEEKDAYS[day % 7] for day in range(start, end + 1, int(step or 1)))
    )


def _parse_weekday(day: str) -> int:
    if day.isdigit():
        return int(day)
    if day not in WEEKDAYS:
        raise ValueError(f"{day} is no weekday")
    return WEEKDAYS.index(day)
