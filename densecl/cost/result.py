"""The measured cost of the modes (reports/cost.json). Imports no torch."""

from densecl.artifacts import Artifact

MAX_CONTROL_WIDTH = 0.10  # of the control's interval, which should contain 1.00


class StepRatio(Artifact):
    """Mean of the rounds' ratios with its interval; no interval where the rounds were too few."""

    value: float
    low: float | None
    high: float | None

    @property
    def width(self) -> float:
        """Width of the interval; infinite without one."""
        return float("inf") if self.low is None or self.high is None else self.high - self.low

    def contains(self, value: float) -> bool:
        """Whether the interval contains a value; False without one."""
        return self.low is not None and self.high is not None and self.low <= value <= self.high


class MachineLoad(Artifact):
    """How busy other processes kept the machine during the measurement."""

    cores: int
    start: float  # load average of the last minute
    end: float  # includes the measurement itself
    busy_cores: float | None  # mean number of cores that other processes used; None: not known


class ModeCost(Artifact):
    """A step of one mode on two views, with its share of diagnostic steps."""

    seconds: float  # median
    against_none: StepRatio
    against_one_view: StepRatio
    memory_bytes: int | None  # that training adds to an idle process; None: it was killed
    queue_size_effective: int


class CostReport(Artifact):
    modes: dict[str, ModeCost]  # always with none
    control: StepRatio  # a second `none` against the first
    one_view_seconds: float  # median
    one_view_memory_bytes: int | None
    rounds: int
    confidence: float  # of each interval
    images: int  # of a timed step
    batch_images: int  # of a training step
    processes: int  # that share a batch in training; one of them was measured
    device: str
    load: MachineLoad

    @property
    def is_measured(self) -> bool:
        """Whether the control shows that equal steps took equal time."""
        return self.control.contains(1.0) and self.control.width <= MAX_CONTROL_WIDTH


def format_ratio(ratio: StepRatio) -> str:
    """`1.32 [1.30, 1.34]`."""
    interval = "" if ratio.low is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
    return f"{ratio.value:.2f}{interval}"
