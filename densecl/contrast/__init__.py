"""Patch matching, sampling, memory and InfoNCE: the method itself."""

from densecl.contrast.infonce import InfoNCEOutput, info_nce
from densecl.contrast.matching import match_patches
from densecl.contrast.memory import Memory
from densecl.contrast.sampling import SAMPLERS

__all__ = ["SAMPLERS", "InfoNCEOutput", "Memory", "info_nce", "match_patches"]
