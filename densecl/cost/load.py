"""How busy other processes keep the machine."""

import os
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from densecl.cost.result import MachineLoad
from densecl.runtime.hardware import count_cores

PROC_STAT = Path("/proc/stat")
IDLE_COLUMNS = (3, 4)  # idle and iowait of user, nice, system, idle, iowait, irq, softirq, steal


class CpuSnapshot(NamedTuple):
    """Seconds of CPU used so far; `total` by all processes, None where the system does not say."""

    time: float
    total: float | None
    own: float  # by this process and its finished children
    load: float


def take_snapshot() -> CpuSnapshot:
    """The counters of the machine and of this process now."""
    own = sum(os.times()[:4])
    try:
        columns = [int(ticks) for ticks in PROC_STAT.read_text(encoding="ascii").split()[1:9]]
    except OSError:
        total = None
    else:
        busy = sum(columns) - sum(columns[i] for i in IDLE_COLUMNS)
        total = busy / os.sysconf("SC_CLK_TCK")
    return CpuSnapshot(monotonic(), total, own, os.getloadavg()[0])


def compare_snapshots(start: CpuSnapshot, end: CpuSnapshot) -> MachineLoad:
    """The load between two snapshots."""
    busy_cores = None
    if start.total is not None and end.total is not None and end.time > start.time:
        used = end.total - start.total - (end.own - start.own)
        busy_cores = round(max(0.0, used / (end.time - start.time)), 2)
    return MachineLoad(
        cores=count_cores(),
        start=round(start.load, 2),
        end=round(end.load, 2),
        busy_cores=busy_cores,
    )
