"""The measured cost of the modes (reports/cost.json). Imports no torch."""

import math

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


def rescale_interval(ratio: StepRatio, cost: CostReport, error_rate: float) -> StepRatio:
    """The ratio with the interval that leaves out the truth at `error_rate` instead of at that of
    `cost`: both are Student's of the mean of the rounds' logarithms (densecl/cost/ratio.py).
    """
    from scipy.stats import t as student_t

    if ratio.low is None or ratio.high is None:
        return ratio
    wanted, given = (
        float(student_t.isf(rate / 2, cost.rounds - 1))
        for rate in (error_rate, 1 - cost.confidence)
    )
    half_width = math.log(ratio.high / ratio.low) / 2 * wanted / given
    low, high = (ratio.value * math.exp(sign * half_width) for sign in (-1, 1))
    return StepRatio(value=ratio.value, low=low, high=high)


def compare_costs(cost: CostReport, mode: str, baseline: str, error_rate: float) -> StepRatio:
    """Step time of `mode` relative to `baseline`.

    Both are measured against `none`; between two others the limits are the quotients of theirs at
    half the error rate each, which hold whatever the two have in common.
    """
    first, second = cost.modes[mode].against_none, cost.modes[baseline].against_none
    if baseline == "none":
        return rescale_interval(first, cost, error_rate)
    first, second = (rescale_interval(ratio, cost, error_rate / 2) for ratio in (first, second))
    value = first.value / second.value
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return StepRatio(value=value, low=None, high=None)
    return StepRatio(value=value, low=first.low / second.high, high=first.high / second.low)


def format_ratio(ratio: StepRatio) -> str:
    """`1.32 [1.30, 1.34]`."""
    interval = "" if ratio.low is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
    return f"{ratio.value:.2f}{interval}"
