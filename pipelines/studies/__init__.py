"""Fair comparisons: equal tuning of the modes, ablations, and studies (docs/fair.md)."""
