"""What all ranks do after the same step if one of them wants it: stop, or save a checkpoint."""

from typing import NamedTuple

import torch
from torch import Tensor

from densecl import distributed
from densecl.training.step_metrics import StepMetrics

COLUMNS = ("vote_stop", "vote_save")


class Decision(NamedTuple):
    """What happens after a step."""

    stop: bool
    save: bool


class Votes:
    """The votes of all ranks travel with the metrics of a step, in the same collective.

    A GPU's votes are read one step later: to wait for those of the last step would leave it idle.
    With one process its own wish is the decision.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.is_async = device, device.type == "cuda"
        self.wish = Decision(stop=False, save=False)  # of this rank, after its last step
        self.counted: Tensor | None = None  # [2], shares of the ranks
        self.unread: Tensor | None = None  # those of the last step, on a GPU

    def cast(self) -> StepMetrics:
        """The wish of this rank, as metrics of the next step."""
        if distributed.get_world_size() == 1:
            return {}
        wish = torch.tensor(self.wish, dtype=torch.float32).to(self.device, non_blocking=True)
        return dict(zip(COLUMNS, wish.unbind(), strict=True))

    def count(self, metrics: StepMetrics) -> StepMetrics:
        """Take the votes out of a step's metrics."""
        if distributed.get_world_size() > 1:
            votes = torch.stack([metrics[name] for name in COLUMNS])
            self.counted, self.unread = (self.unread, votes) if self.is_async else (votes, None)
        return {name: value for name, value in metrics.items() if name not in COLUMNS}

    def decide(self, wish: Decision) -> Decision:
        """What every rank does now; `wish` is that of this rank."""
        self.wish = wish
        if distributed.get_world_size() == 1:
            return wish
        if self.counted is None:
            return Decision(stop=False, save=False)
        stop, save = (self.counted > 0).tolist()
        if save:  # votes that were cast meanwhile ask for the same checkpoint
            self.wish = wish._replace(save=False)
            if self.unread is not None:
                self.unread[COLUMNS.index("vote_save")] = 0
        return Decision(stop, save)
