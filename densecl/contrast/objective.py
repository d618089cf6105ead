"""What every objective provides to the training step, and mode none."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from densecl.contrast.memory import NewKeys
from densecl.contrast.view_pairs import ViewPair
from densecl.network.vit import Backbone


class ContrastiveOutput(NamedTuple):
    """The contrastive loss of a batch, and what is logged of it."""

    loss: Tensor  # scalar
    metrics: dict[str, Tensor]  # scalars without gradient, by column of history.csv


class Objective(Protocol):
    """A contrastive objective: `NoObjective`, `GlobalObjective` or `DenseObjective`.

    All three are modules (`nn.Module`) with the same methods, so that nothing in the training loop
    depends on the mode.
    """

    lambda_weight: float  # weight of the contrastive loss at the end of its ramp

    @property
    def memory_size(self) -> int:
        """Entries of the memory queue, K; 0 without one."""

    def forward(
        self, views: ViewPair, diagnostics: bool = True
    ) -> tuple[ContrastiveOutput, list[NewKeys]]:
        """The loss of two views, and the keys to write to the memory queue after the step, by
        direction: view 1 queries view 2, then the other way round.

        Leaves the memory queue as it is. `diagnostics` adds the metrics of the negatives, which
        are NaN otherwise.
        """

    def list_trained_modules(self) -> list[nn.Module]:
        """The modules whose parameters the optimizer steps."""

    @property
    def keys_per_image(self) -> int:
        """Largest number of keys that an image adds to the memory queue, in one direction."""

    @property
    def keys_vary(self) -> bool:
        """Whether an image may add fewer keys than `keys_per_image`."""

    def update_after_step(
        self, model: Backbone, new_keys: NewKeys, step: int, progress: float
    ) -> None:
        """Call after the optimizer's step: write the memory queue, move the momentum encoder.

        `progress` in [0, 1] is the share of the training run that is done.
        """

    def compute_lambda_weight(self, epoch: float) -> float:
        """Weight of the contrastive loss at a fractional epoch."""

    def collect_metrics(self, epoch: float) -> dict[str, float]:
        """State of the objective itself at a fractional epoch, by column of history.csv."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters to train, as in `nn.Module`."""

    def modules(self) -> Iterator[nn.Module]:
        """All submodules, as in `nn.Module`."""


class NoObjective(nn.Module):
    """Mode none: a contrastive loss of 0, and no memory queue."""

    lambda_weight = 0.0
    memory_size = 0
    keys_per_image = 0
    keys_vary = False

    def forward(
        self,
        views: ViewPair,
        diagnostics: bool = True,  # noqa: ARG002
    ) -> tuple[ContrastiveOutput, list[NewKeys]]:
        """Loss 0 without gradient, no metrics, no keys."""
        logits = views.view1.tokens.logits
        new_keys = NewKeys(logits.new_zeros(0), views.image_ids[:0], views.class_ids[:0])
        return ContrastiveOutput(logits.new_zeros(()), {}), [new_keys]

    def list_trained_modules(self) -> list[nn.Module]:
        """None beside the model."""
        return []

    def update_after_step(
        self, model: Backbone, new_keys: NewKeys, step: int, progress: float
    ) -> None:
        """Nothing to update."""

    def compute_lambda_weight(self, epoch: float) -> float:  # noqa: ARG002
        """0 at any epoch."""
        return 0.0

    def collect_metrics(self, epoch: float) -> dict[str, float]:  # noqa: ARG002
        """Nothing to log."""
        return {}
