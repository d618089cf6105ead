"""Equal tuning of the modes: `python -m pipelines sweep`."""
