"""The method: dense and global contrastive learning of vision transformers.

Reading order: `infonce` (the loss), `memory` (the queue of negatives), `matching` and `sampling`
(which patches form pairs), `dense` and `global_` (the two objectives), `contrastive` (what they
share), `objective` (the protocol, and mode none).

Dimension letters, used throughout the package:

    B  images per batch                    K  entries of the memory queue
    N  patches per image                   R  new keys per step, written to the queue
    M  sampled patches per image           E  embedding dimension of the backbone
    Q  queries: at most B or B * M         D  projection dimension

Q is B for the global and at most B * M for the dense objective, twice that if `symmetric`.
"""

from densecl.contrast.build import AnyObjective, build_objective
from densecl.contrast.contrastive import ContrastiveObjective
from densecl.contrast.dense import DenseObjective
from densecl.contrast.global_ import GlobalObjective
from densecl.contrast.infonce import InfoNCEOutput, info_nce, info_nce_reference
from densecl.contrast.matching import find_true_matches, is_mutual_match, match_patches
from densecl.contrast.memory import MemoryQueue, NewKeys
from densecl.contrast.negative_mask import NegativeMask
from densecl.contrast.objective import ContrastiveOutput, NoObjective, Objective
from densecl.contrast.sampling import SAMPLERS
from densecl.contrast.temperature import Temperature
from densecl.contrast.view_pairs import EncodedView, PositivePairs, ViewPair

__all__ = [
    "SAMPLERS",
    "AnyObjective",
    "ContrastiveObjective",
    "ContrastiveOutput",
    "DenseObjective",
    "EncodedView",
    "GlobalObjective",
    "InfoNCEOutput",
    "MemoryQueue",
    "NegativeMask",
    "NewKeys",
    "NoObjective",
    "Objective",
    "PositivePairs",
    "Temperature",
    "ViewPair",
    "build_objective",
    "find_true_matches",
    "info_nce",
    "info_nce_reference",
    "is_mutual_match",
    "match_patches",
]
