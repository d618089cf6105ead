"""What each mode adds to classification: dense and global differ only in how pairs are formed.

Letters: B images, N patches, M sampled, Q queries (B or B*M), K memory, R rows remembered, E embedding, D projection.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecl import parallel
from densecl.contrast.attention import Ids, hardest_negative
from densecl.contrast.correspondence import match_patches, match_similarity, mutual, true_matches
from densecl.contrast.infonce import Contrast, info_nce, share_of_mean
from densecl.contrast.keys import MomentumKeys, SharedKeys
from densecl.contrast.memory import Memory, Rows
from densecl.contrast.sampling import SAMPLERS
from densecl.network.heads import ProjectionHead
from densecl.network.vit import Backbone, Tokens, grid
from densecl.params import DenseContrast, GlobalContrast

BOUNDS = (0.01, 1.0)  # of a learnt temperature


class Side(NamedTuple):
    """One view of a batch, as an objective sees it."""

    tokens: Tokens  # of the trained model
    images: Tensor  # [B, 3, H, W] normalised
    geometry: Tensor  # [B, 5]


class Views(NamedTuple):
    """Both views of a batch."""

    first: Side
    second: Side
    image_ids: Tensor  # [B]
    class_ids: Tensor  # [B]


class Pairs(NamedTuple):
    """Positives: row i of queries belongs to row i of keys; and what the memory is to keep of them."""

    queries: Tensor  # [Q, D] of view 1, L2-normalised fp32
    keys: Tensor  # [Q, D] of view 2, the same, without gradient
    image_ids: Tensor  # [Q]
    class_ids: Tensor  # [Q]
    kept: Rows


class Temperature(nn.Module):
    """Fixed, or learnt as its logarithm (Radford et al. 2021) within BOUNDS; call `bound` after each step."""

    def __init__(self, start: float, learnt: bool) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(start)), requires_grad=learnt)

    def forward(self) -> Tensor:
        return self.log.exp()

    @torch.no_grad()
    def bound(self) -> None:
        """Clamps the parameter itself: clamped in `forward` it would have no gradient outside, and never come back."""
        low, high = (math.log(b) for b in BOUNDS)
        self.log.clamp_(low, high)


class Objective(nn.Module):
    """Mode none: no pairs, a contrastive loss of 0, nothing to remember."""

    weight = 0.0  # target lambda

    def score(self, views: Views, watch: bool = True) -> tuple[Contrast, Rows]:  # noqa: ARG002
        """Contrast of the two views (cosines of negatives only with `watch`), and the rows to remember after the step."""
        logits = views.first.tokens.logits
        zero, nothing = logits.new_zeros(()), logits.new_zeros(0)
        rows = Rows(nothing, views.image_ids[:0], views.class_ids[:0])
        unseen = zero * torch.nan
        return Contrast(zero, unseen, unseen, unseen, zero, zero), rows

    def after(self, model: Backbone, rows: Rows, step: int, progress: float) -> None:
        """Called after the optimiser's step: remember the rows just scored, and let slow copies follow."""

    def lambda_at(self, epoch: float) -> float:  # noqa: ARG002
        """Weight of the contrastive loss at a fractional epoch."""
        return 0.0

    def state(self) -> dict[str, float]:
        """What to watch of the objective itself, by the names of history.csv."""
        return {}

    @property
    def memory_rows(self) -> int:
        """Entries of the memory; 0 without one."""
        return 0


class Contrastive(Objective, ABC):
    """Shared by dense and global: projection, keys, memory, temperature, InfoNCE and the ramp of lambda."""

    def __init__(
        self, settings: GlobalContrast, model: Backbone, queue_size: int, seed: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.settings, self.generator, self.weight = settings, generator, settings.lambda_weight
        self.grid = grid(model)
        self.head = ProjectionHead(model.embed_dim, settings.dense_dim, seed)
        self.key_encoder = (
            MomentumKeys(model, self.head, settings.key_momentum)
            if settings.key_encoder == "momentum"
            else SharedKeys()
        )
        self.temperature = Temperature(settings.temperature, settings.learnable_temp)
        self.memory = Memory(queue_size, settings.dense_dim)

    def score(self, views: Views, watch: bool = True) -> tuple[Contrast, Rows]:
        """InfoNCE of this mode's pairs against the memory as it stood before this step.

        `symmetric` scores view 2 against view 1 as well; both directions' keys are remembered.
        """
        sides = [self.pairs(views)]
        if self.settings.symmetric:
            sides.append(self.pairs(views._replace(first=views.second, second=views.first)))
        remembered = [Rows(*parallel.all_rows(*pairs.kept)) for pairs in sides]
        kept = Rows(*(torch.cat(part) for part in zip(*remembered, strict=True)))
        queries, keys, image_ids, class_ids = (
            torch.cat(part) for part in zip(*(pairs[:4] for pairs in sides), strict=True)
        )
        ids = self._ids(image_ids, class_ids)._asdict()
        contrast = info_nce(queries, keys, self.negatives, self.temperature(), **ids, watch=watch)
        return share_of_mean(contrast, len(queries)), kept

    @abstractmethod
    def pairs(self, views: Views) -> Pairs:
        """Queries of view 1 and keys of view 2, as this mode pairs them."""

    @property
    def negatives(self) -> Tensor:
        """[filled, D] of the memory, in no order that matters."""
        return self.memory.ring[: self.memory.filled]

    def _ids(self, image_ids: Tensor, class_ids: Tensor) -> Ids:
        """Which entries are no negatives: those of the query's image; with `negatives: other_class`, of its class."""
        filled = self.memory.filled
        ids = Ids(image_ids, self.memory.ring_image_ids[:filled])
        if self.settings.negatives == "other_class":
            ids = ids._replace(query_classes=class_ids, memory_classes=self.memory.ring_class_ids[:filled])
        return ids

    def after(self, model: Backbone, rows: Rows, step: int, progress: float) -> None:
        self.memory.write(*rows, step)
        self.temperature.bound()
        self.key_encoder.follow(model, self.head, progress)

    def lambda_at(self, epoch: float) -> float:
        """The target, or with `contrastive_weight_adaptive` a half-cosine from 0 to it over `ramp_epochs`."""
        if not self.settings.contrastive_weight_adaptive:
            return self.weight
        share = min(1.0, epoch / self.settings.ramp_epochs)
        return self.weight * (1 - math.cos(math.pi * share)) / 2

    def state(self) -> dict[str, float]:
        """Diversity of the memory, and the temperature."""
        return self.memory.diversity() | {"temperature": float(self.temperature().detach())}

    @property
    def memory_rows(self) -> int:
        return self.memory.size


class Global(Contrastive):
    """Image level: the CLS tokens of an image's two views are a pair (Q = B)."""

    def pairs(self, views: Views) -> Pairs:
        with torch.no_grad():
            seen = self.key_encoder(views.second.images, views.second.tokens)
            keys = F.normalize(self.key_encoder.head(self.head)(seen.cls), dim=-1)
        queries = F.normalize(self.head(views.first.tokens.cls), dim=-1)
        return Pairs(queries, keys, views.image_ids, views.class_ids, Rows(keys, views.image_ids, views.class_ids))


class Dense(Contrastive):
    """Patch level: M patches of view 1, each with its match in view 2 (Q = B*M, less what a filter leaves out)."""

    settings: DenseContrast

    def pairs(self, views: Views) -> Pairs:
        how = self.settings
        first = views.first.tokens.patches  # [B, N, E]
        index: Tensor | None = None
        allowed: Tensor | None = None
        if how.correspondence_features == "geometric":
            index, allowed = true_matches(views.first.geometry, views.second.geometry, self.grid)
        # Where nothing but chance decides, what is not sampled is neither projected nor matched.
        early = how.sampling_strategy == "random" and how.correspondence_filter == "none"
        if early:
            picks = self._sample(first, None, allowed)  # [B, M]
            first, index, allowed = _take(first, picks), _take(index, picks), _take(allowed, picks)
        queries = F.normalize(self.head(first), dim=-1)  # [B, M or N, D]
        with torch.no_grad():
            seen = self.key_encoder(views.second.images, views.second.tokens)
            head = self.key_encoder.head(self.head)
            whole = how.correspondence_features == "dense" or how.memory_unit == "image"
            projected = head(seen.patches) if whole else None  # [B, N, D]
            if index is None:
                index, allowed = self._match(first, queries, seen.patches, projected)
            matched = head(_take(seen.patches, index)) if projected is None else _take(projected, index)
            keys = F.normalize(matched, dim=-1)  # [B, M or N, D]
            if not early:
                scores = self._hardness(queries, keys, views) if how.sampling_strategy == "hardest" else None
                picks = self._sample(queries, scores, allowed)
        if not early:
            queries, keys, allowed = _take(queries, picks), _take(keys, picks), _take(allowed, picks)
        image_ids, class_ids = (ids[:, None].expand_as(picks) for ids in (views.image_ids, views.class_ids))
        kept = self._kept(projected, keys, allowed, views)
        queries, keys, image_ids, class_ids = (_rows(part, allowed) for part in (queries, keys, image_ids, class_ids))
        return Pairs(queries, keys, image_ids, class_ids, kept)

    def _match(
        self, first: Tensor, queries: Tensor, second: Tensor, keys: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Match in view 2 of each patch [B, M or N], and which patches count, bool of that shape; None where all do.

        By the backbone's features (first, second) or the head's (queries, keys); cosines need no normalised features.
        """
        if self.settings.correspondence_features == "dense" and keys is not None:
            first, second = queries, keys
        allowed = None
        if self.settings.correspondence_filter == "mutual":
            allowed = mutual(first, second)
        elif self.settings.correspondence_filter == "threshold":
            allowed = match_similarity(first, second) >= self.settings.correspondence_threshold
        return match_patches(first, second), allowed

    def _kept(self, projected: Tensor | None, keys: Tensor, allowed: Tensor | None, views: Views) -> Rows:
        """What the memory is to keep of keys [B, M, D], or, pooled, of the head's whole output [B, N, D]."""
        if self.settings.memory_unit == "image" and projected is not None:
            # DenseCL's code pools what the head gives, then normalises.
            return Rows(F.normalize(projected.mean(1), dim=-1), views.image_ids, views.class_ids)
        counted = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device) if allowed is None else allowed
        among = counted if self.settings.memory_per_image or allowed is not None else None
        if self.settings.memory_per_image:
            among = counted & (counted.cumsum(1) <= self.settings.memory_per_image)
        ids = (of[:, None].expand(keys.shape[:2]) for of in (views.image_ids, views.class_ids))
        return Rows(*(_rows(part, among) for part in (keys, *ids)))

    def _sample(self, features: Tensor, scores: Tensor | None, allowed: Tensor | None) -> Tensor:
        count, sampler = self.settings.patches_per_image, SAMPLERS[self.settings.sampling_strategy]
        return sampler(features, count, self.generator, scores, allowed)

    def _hardness(self, queries: Tensor, matched: Tensor, views: Views) -> Tensor | None:
        """[B, N] cosine of the hardest negative less the positive's; None while the memory is empty."""
        if not self.memory.filled:
            return None
        patches = queries.shape[1]
        ids = self._ids(*(of.repeat_interleave(patches) for of in (views.image_ids, views.class_ids)))
        hardest = hardest_negative(queries.flatten(0, 1), self.negatives, ids)
        return hardest.view(len(queries), patches) - (queries * matched).sum(-1)


@overload
def _take(values: Tensor, index: Tensor) -> Tensor: ...
@overload
def _take(values: Tensor | None, index: Tensor) -> Tensor | None: ...
def _take(values: Tensor | None, index: Tensor) -> Tensor | None:
    """Patches [B, M, ...] of values [B, N, ...] by index [B, M]; None of None."""
    if values is None or values.dim() == 2:
        return None if values is None else values.gather(1, index)
    return torch.take_along_dim(values, index[..., None], dim=1)


def _rows(values: Tensor, counted: Tensor | None) -> Tensor:
    """[B, M, ...] as rows: all, or those counted, in order."""
    return values.flatten(0, 1) if counted is None else values[counted]


def build_objective(
    settings: GlobalContrast | None, model: Backbone, queue_size: int, seed: int, generator: torch.Generator
) -> Objective:
    """The objective of a mode's settings; None is mode none."""
    if settings is None:
        return Objective()
    kind = Dense if isinstance(settings, DenseContrast) else Global
    return kind(settings, model, queue_size, seed, generator)


def writes_per_image(settings: GlobalContrast | None, patches: int) -> int:
    """Most keys that one image adds to the memory in a step."""
    directions = 2 if settings and settings.symmetric else 1
    if not isinstance(settings, DenseContrast) or settings.memory_unit == "image":
        return directions
    return directions * min(settings.patches_per_image, patches, settings.memory_per_image or patches)
