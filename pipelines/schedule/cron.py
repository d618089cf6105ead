"""Cron expressions in a named time zone."""

import difflib
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter
from tzlocal import get_localzone

from densecl.errors import DenseclError

EXPECTED = (
    "expected five fields (minute hour day month weekday), "
    "or six with seconds first, e.g. '0 3 * * 1'"
)


def parse_timezone(name: str | None) -> tzinfo:
    """The named time zone, or that of this machine for None."""
    if name is None:
        return get_localzone()
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # no such zone, a folder of zones, an absolute path
        matches = difflib.get_close_matches(name, available_timezones(), 1)
        hint = (
            f"did you mean {matches[0]}?" if matches else "expected a name like Europe/Paris or UTC"
        )
        raise DenseclError(f"--timezone: found {name!r}; {hint}") from None


class CronSchedule:
    """The ticks of a cron expression, as Vixie cron reads it (`man 5 crontab`).

    Weekdays 0 and 7 are Sunday; where day and weekday are both restricted, either is enough. A time
    that the spring change of clocks skips fires at the end of the gap; one that the autumn change
    repeats fires once where the hour is fixed, and in both hours where it is `*`.
    """

    def __init__(self, expression: str, timezone: tzinfo) -> None:
        fields = expression.split()
        if len(fields) not in {5, 6}:
            raise DenseclError(f"--cron: found {expression!r}, {EXPECTED}")
        self.expression, self.timezone = expression, timezone
        self.runs_hourly = "*" in fields[-4]
        try:
            self.find_next(datetime.now(timezone))
        except ValueError as error:  # croniter's errors derive from it
            raise DenseclError(f"--cron: found {expression!r}: {error}; {EXPECTED}") from None

    def find_next(self, moment: datetime) -> datetime:
        """The first tick after `moment`, in the schedule's zone."""
        ticks = croniter(
            self.expression, moment.astimezone(self.timezone), second_at_beginning=True
        )
        tick: datetime = ticks.get_next(datetime)
        while tick.fold and not self.runs_hourly:
            tick = ticks.get_next(datetime)
        return tick
