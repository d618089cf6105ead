"""Backbones (timm vision transformers), their tokens and preprocessing, and projection heads.

Dimension letters: B images, N patches, E embedding, D projection, C classes.
"""

from densecl.network.exported import load_exported_model
from densecl.network.heads import ProjectionHead
from densecl.network.preprocessing import (
    build_evaluation_transform,
    normalise_images,
    resolve_preprocessing,
)
from densecl.network.vit import (
    Backbone,
    ModelError,
    Tokens,
    build_model,
    check_model,
    forward_last_two_blocks,
    forward_tokens,
    get_patch_grid,
)

__all__ = [
    "Backbone",
    "ModelError",
    "ProjectionHead",
    "Tokens",
    "build_evaluation_transform",
    "build_model",
    "check_model",
    "forward_last_two_blocks",
    "forward_tokens",
    "get_patch_grid",
    "load_exported_model",
    "normalise_images",
    "resolve_preprocessing",
]
