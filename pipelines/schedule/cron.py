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


def zone(name: str | None) -> tzinfo:
    """The zone of that name; None: this machine's own."""
    from tzlocal import get_localzone

    if name is None:
        return get_localzone()
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # no such zone, a folder of zones, an absolute path
        close = difflib.get_close_matches(name, available_timezones(), 1)
        hint = f"did you mean {close[0]}?" if close else "expected a name like Europe/Paris or UTC"
        if not available_timezones():
            hint = "this machine has no time zone database: install its tzdata package"
        raise DenseclError(f"--timezone: found {name!r}; {hint}") from None


def fields(expression: str) -> list[str]:
    """Seconds, minute, hour, day, month, weekday; DenseclError where there are not five or six."""
    found = expression.split()
    if len(found) not in {5, 6}:
        raise DenseclError(f"--cron: found {expression!r}, {EXPECTED}")
    return ["0"] * (6 - len(found)) + found


def trigger(expression: str, where: tzinfo) -> BaseTrigger:
    """Fires when cron would: weekday 0 is Sunday, and where day and weekday are both restricted
    either of them is enough.

    APScheduler's own `from_crontab` counts weekdays from Monday and wants both to match.
    """
    from apscheduler.triggers.combining import OrTrigger
    from apscheduler.triggers.cron import CronTrigger

    second, *rest = fields(expression)
    try:
        values = dict(zip(FIELDS, (*rest[:4], weekdays(rest[4])), strict=True))
        rules = [values]
        if not values["day"].startswith("*") and not rest[4].startswith("*"):
            rules = [values | {"day": "*"}, values | {"day_of_week": "*"}]
        made = OrTrigger([CronTrigger(second=second, timezone=where, **each) for each in rules])
    except ValueError as error:
        raise DenseclError(
            f"--cron: found {expression!r}: {' '.join(str(error).split())}; {EXPECTED}"
        ) from None
    if made.get_next_fire_time(None, datetime.now(where)) is None:
        raise DenseclError(f"--cron: found {expression!r}, a date that never comes")
    return made


def weekdays(field: str) -> str:
    """Cron's weekday field with names for numbers: `1-5` is mon,tue,wed,thu,fri and `*/2`
    sun,tue,thu,sat.
    """
    return ",".join(_named(part) for part in field.lower().split(","))


def _named(part: str) -> str:
    found = re.fullmatch(r"(\*|[0-7]|[a-z]{3})(?:-([0-7]|[a-z]{3}))?(?:/([1-9]))?", part)
    if part == "*" or not found:
        return part  # APScheduler says what is wrong with it
    first, last, step = found.groups()
    start = 0 if first == "*" else _number(first)
    end = 6 if first == "*" or (step and not last) else _number(last or first)
    if end < start:
        end += 7 if last and last.isalpha() and start else 0
    if end < start:
        raise ValueError(f"weekdays {part} end before they begin")
    return ",".join(
        dict.fromkeys(WEEKDAYS[day % 7] for day in range(start, end + 1, int(step or 1)))
    )


def _number(day: str) -> int:
    if day.isdigit():
        return int(day)
    if day not in WEEKDAYS:
        raise ValueError(f"{day} is no weekday")
    return WEEKDAYS.index(day)
