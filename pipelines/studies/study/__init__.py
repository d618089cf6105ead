"""Whole studies: `python -m pipelines study FILE`."""
