"""The dense objective: one positive pair per sampled patch (DenseCL, Wang et al. 2021).

Unlike DenseCL there is no global term: lambda weights this loss against classification.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.config.params import DenseContrastParams
from densecl.contrast.contrastive import ContrastiveObjective
from densecl.contrast.matching import (
    compute_match_similarity,
    find_true_matches,
    is_mutual_match,
    match_patches,
)
from densecl.contrast.memory import NewKeys
from densecl.contrast.memory_softmax import find_hardest_negative
from densecl.contrast.sampling import SAMPLERS
from densecl.contrast.view_pairs import PositivePairs, ViewPair


class PatchFeatures(NamedTuple):
    """Features of all patches: of view 1 as queries, of view 2 from the key encoder."""

    patches1: Tensor  # [B, N, E], of the backbone
    queries: Tensor  # [B, N, D], projected and L2-normalised
    patches2: Tensor  # [B, N, E], of the backbone
    projected2: Tensor  # [B, N, D], not normalised


class PatchSelection(NamedTuple):
    """Which patches of view 1 enter the loss, and their matches in view 2."""

    picks: Tensor  # [B, M], patches of view 1
    matches: Tensor  # [B, M], patches of view 2
    valid: Tensor | None  # bool [B, M], True where the pair enters the loss; None: all do


class DenseObjective(ContrastiveObjective):
    """Sampled patches of view 1 with their matches in view 2 are positive pairs; Q <= B * M.

    Patches without a valid match (see `_match_patches`) form no pair.
    """

    settings: DenseContrastParams

    @property
    def keys_per_image(self) -> int:
        """As `memory_unit` and `memory_per_image` say."""
        if self.settings.memory_unit == "image":
            return 1
        sampled = min(self.settings.patches_per_image, math.prod(self.grid))
        return min(sampled, self.settings.memory_per_image or sampled)

    @property
    def keys_vary(self) -> bool:
        """True where patches without a valid match form no pair."""
        settings = self.settings
        return settings.memory_unit == "patch" and (
            settings.correspondence_features == "geometric"
            or settings.correspondence_filter != "none"
        )

    def build_pairs(self, views: ViewPair) -> tuple[PositivePairs, NewKeys]:
        """The pairs of `select_patches`, and the keys to store, as `memory_unit` says."""
        features = self.encode_patches(views)
        picks, matches, valid = self.select_patches(features, views, self.generator)
        queries = _take_patches(features.queries, picks)  # [B, M, D]
        keys = F.normalize(_take_patches(features.projected2, matches), dim=-1)  # [B, M, D]
        image_ids = views.image_ids[:, None].expand_as(picks)  # [B, M]
        class_ids = views.class_ids[:, None].expand_as(picks)  # [B, M]
        columns = (queries, keys, image_ids, class_ids)
        pairs = PositivePairs(*(_flatten(part, valid) for part in columns))  # Q rows

        if self.settings.memory_unit == "image":  # pooled, then normalised, as in DenseCL's code
            pooled = F.normalize(features.projected2.mean(1), dim=-1)  # [B, D]
            return pairs, NewKeys(pooled, views.image_ids, views.class_ids)
        stored = self._limit_stored_keys(picks, valid)  # [B, M]
        return pairs, NewKeys(*(_flatten(part, stored) for part in (keys, image_ids, class_ids)))

    def encode_patches(self, views: ViewPair) -> PatchFeatures:
        """Project all patches of both views; only those of view 1 carry a gradient."""
        patches1 = views.view1.tokens.patches  # [B, N, E]
        queries = F.normalize(self.head(patches1), dim=-1)  # [B, N, D]
        with torch.no_grad():
            patches2 = self.key_encoder(views.view2.images, views.view2.tokens).patches  # [B, N, E]
            projected2 = self.key_encoder.get_key_head(self.head)(patches2)  # [B, N, D]
        return PatchFeatures(patches1, queries, patches2, projected2)

    @torch.no_grad()
    def select_patches(
        self, features: PatchFeatures, views: ViewPair, generator: torch.Generator
    ) -> PatchSelection:
        """Match view 1 to view 2, then sample M patches of each image, valid matches first."""
        if self.settings.correspondence_features == "dense":
            index, valid = self._match_patches(features.queries, features.projected2, views)
        else:
            index, valid = self._match_patches(features.patches1, features.patches2, views)
        picks = self._sample_patches(features, index, valid, views, generator)  # [B, M]
        picked_valid = None if valid is None else valid.gather(1, picks)  # [B, M]
        return PatchSelection(picks, index.gather(1, picks), picked_valid)

    def _match_patches(
        self, patches1: Tensor, patches2: Tensor, views: ViewPair
    ) -> tuple[Tensor, Tensor | None]:
        """Index [B, N] into view 2 of each patch's match; bool [B, N] of the valid matches.

        The second is None if all are valid. `patches1`, `patches2`: the features to match by, [B,
        N, E or D]. Valid are: patches that view 2 shows (geometric), mutual matches, or matches
        with a cosine of `correspondence_threshold` or more, as `correspondence_filter` says.
        """
        settings = self.settings
        if settings.correspondence_features == "geometric":
            return find_true_matches(views.view1.geometry, views.view2.geometry, self.grid)
        valid = None
        if settings.correspondence_filter == "mutual":
            valid = is_mutual_match(patches1, patches2)
        elif settings.correspondence_filter == "threshold":
            cosines = compute_match_similarity(patches1, patches2)
            valid = cosines >= settings.correspondence_threshold
        return match_patches(patches1, patches2), valid

    def _sample_patches(
        self,
        features: PatchFeatures,
        index: Tensor,
        valid: Tensor | None,
        views: ViewPair,
        generator: torch.Generator,
    ) -> Tensor:
        """[B, M] patches of view 1 by `sampling_strategy`, valid ones first; index: [B, N]."""
        settings = self.settings
        scores = None
        if settings.sampling_strategy == "hardest":
            keys = F.normalize(_take_patches(features.projected2, index), dim=-1)  # [B, N, D]
            scores = self._compute_hardness(features.queries, keys, views)
        sampler = SAMPLERS[settings.sampling_strategy]
        return sampler(features.queries, settings.patches_per_image, generator, scores, valid)

    def _compute_hardness(self, queries: Tensor, keys: Tensor, views: ViewPair) -> Tensor | None:
        """[B, N] cosine of the hardest negative minus that of the positive.

        None while the memory queue is empty.
        """
        if not self.memory.filled:
            return None
        batch, patches, _ = queries.shape
        image_ids = views.image_ids.repeat_interleave(patches)  # [B * N]
        class_ids = views.class_ids.repeat_interleave(patches)  # [B * N]
        mask = self._build_negative_mask(image_ids, class_ids)
        hardest = find_hardest_negative(queries.flatten(0, 1), self.negatives, mask)  # [B * N]
        return hardest.view(batch, patches) - (queries * keys).sum(-1)

    def _limit_stored_keys(self, picks: Tensor, valid: Tensor | None) -> Tensor | None:
        """Bool [B, M]: the first `memory_per_image` valid keys of each image; None for all."""
        limit = self.settings.memory_per_image
        if limit is None:
            return valid
        if valid is None:
            valid = torch.ones_like(picks, dtype=torch.bool)
        return valid & (valid.cumsum(1) <= limit)


def _take_patches(values: Tensor, index: Tensor) -> Tensor:
    """[B, M, D] of values [B, N, D] by index [B, M]."""
    return torch.take_along_dim(values, index[..., None], dim=1)


def _flatten(values: Tensor, selected: Tensor | None) -> Tensor:
    """[B, M, ...] as rows in order: those of `selected`, bool [B, M], or all if it is None.

    Selecting by a mask synchronises host and GPU, so None is cheaper than a mask that is all True.
    """
    return values.flatten(0, 1) if selected is None else values[selected]
