"""What the dense and the global objective share: head, keys, memory queue, temperature, loss."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from densecl.config.params import GlobalContrastParams
from densecl.contrast.infonce import masked_info_nce, weight_by_queries
from densecl.contrast.key_encoder import MomentumKeyEncoder, SharedKeyEncoder
from densecl.contrast.memory import MemoryQueue, NewKeys
from densecl.contrast.negative_mask import NegativeMask
from densecl.contrast.objective import ContrastiveOutput
from densecl.contrast.temperature import Temperature
from densecl.contrast.view_pairs import PositivePairs, ViewPair
from densecl.network.heads import ProjectionHead
from densecl.network.vit import Backbone, get_patch_grid


class ContrastiveObjective(nn.Module, ABC):
    """InfoNCE of positive pairs against a memory queue; subclasses form the pairs.

    Args:
        settings: the values of the mode.
        model: the backbone; read for its sizes, copied for a momentum encoder.
        queue_size: entries of the memory queue.
        seed: of the head's initial weights.
        generator: of the sampled patches; part of a checkpoint.
        max_key_age: steps for which a key is a negative, the step that wrote it excluded; None: as
            long as the memory queue holds it.
    """

    def __init__(
        self,
        settings: GlobalContrastParams,
        model: Backbone,
        queue_size: int,
        seed: int,
        generator: torch.Generator,
        max_key_age: int | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.generator = generator
        self.max_key_age = max_key_age
        self.lambda_weight = settings.lambda_weight
        self.grid = get_patch_grid(model)
        self.head = ProjectionHead(model.embed_dim, settings.dense_dim, seed)
        self.key_encoder = (
            MomentumKeyEncoder(model, self.head, settings.key_momentum)
            if settings.key_encoder == "momentum"
            else SharedKeyEncoder()
        )
        self.temperature = Temperature(settings.temperature, settings.learnable_temp)
        self.memory = MemoryQueue(queue_size, settings.dense_dim)

    @abstractmethod
    def build_pairs(self, views: ViewPair) -> tuple[PositivePairs, NewKeys]:
        """The pairs of this mode, queries of view 1 and keys of view 2, and the keys to store."""

    def forward(
        self, views: ViewPair, diagnostics: bool = True
    ) -> tuple[ContrastiveOutput, list[NewKeys]]:
        """InfoNCE of this mode's pairs against the memory queue as it was before this step.

        With `symmetric`, view 2 also queries view 1, the loss is the mean over all queries,
        and the keys of both directions are stored.
        """
        directions = self.list_directions(views)
        pair_parts, new_keys = zip(*(self.build_pairs(d) for d in directions), strict=True)
        pairs = PositivePairs.concatenate(pair_parts)
        mask = self._build_negative_mask(pairs.image_ids, pairs.class_ids)
        output = masked_info_nce(
            pairs.queries, pairs.keys, self.negatives, self.temperature(), mask, diagnostics
        )
        output = weight_by_queries(output, len(pairs.queries))
        metrics = {
            # Of no query the loss is 0, for the gradient's sake; chance is then NaN.
            "contrastive_loss": torch.where(output.chance.isnan(), torch.nan, output.loss.detach()),
            "contrastive_chance": output.chance,
            "positive_similarity": output.positive_similarity,
            "negative_similarity": output.negative_similarity,
            "pretext_top1": output.pretext_top1,
        }
        return ContrastiveOutput(output.loss, metrics), list(new_keys)

    def list_trained_modules(self) -> list[nn.Module]:
        """Head and temperature."""
        return [self.head, self.temperature]

    @property
    def keys_per_image(self) -> int:
        """Largest number of keys that an image adds to the memory queue, in one direction."""
        return 1

    @property
    def keys_vary(self) -> bool:
        """Whether an image may add fewer keys than `keys_per_image`."""
        return False

    def list_directions(self, views: ViewPair) -> list[ViewPair]:
        """The pairs of views whose first is the queries'; `symmetric` adds the other way round."""
        return [views, views.swap()] if self.settings.symmetric else [views]

    def update_after_step(
        self, model: Backbone, new_keys: NewKeys, step: int, progress: float
    ) -> None:
        """Write the memory queue, clamp the temperature, move the momentum encoder."""
        self.memory.write(*new_keys, step)
        if self.max_key_age is not None:
            self.memory.discard_before(step + 1 - self.max_key_age)
        self.temperature.clamp_()
        self.key_encoder.update_from(model, self.head, progress)

    @property
    def memory_size(self) -> int:
        """Entries of the memory queue, K."""
        return self.memory.size

    @property
    def negatives(self) -> Tensor:
        """[filled, D]: the filled part of the memory queue, in storage order."""
        return self.memory.buffer[: self.memory.filled]

    def _build_negative_mask(self, image_ids: Tensor, class_ids: Tensor) -> NegativeMask:
        """Mask entries of the query's image, and with `negatives: other_class` of its class."""
        filled = self.memory.filled
        mask = NegativeMask(image_ids, self.memory.buffer_image_ids[:filled])
        if self.settings.negatives == "other_class":
            memory_classes = self.memory.buffer_class_ids[:filled]
            mask = mask._replace(query_classes=class_ids, memory_classes=memory_classes)
        return mask

    def compute_lambda_weight(self, epoch: float) -> float:
        """`lambda_weight`; if adaptive, a half cosine from 0 to it over `ramp_epochs`."""
        if not self.settings.contrastive_weight_adaptive:
            return self.lambda_weight
        progress = min(1.0, epoch / self.settings.ramp_epochs)
        return self.lambda_weight * (1 - math.cos(math.pi * progress)) / 2

    def collect_metrics(self, epoch: float) -> dict[str, float]:
        """Diversity of the memory queue, temperature, and lambda at a fractional epoch."""
        return self.memory.measure_diversity() | {
            "temperature": float(self.temperature().detach()),
            "lambda_weight": self.compute_lambda_weight(epoch),
        }
