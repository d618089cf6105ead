"""Altered images that probes show to a model: dropped patches, warps, what is salient."""
