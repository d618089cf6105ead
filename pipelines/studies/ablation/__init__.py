"""One-factor ablations: `python -m pipelines ablate`."""
