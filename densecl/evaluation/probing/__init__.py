"""How probes run: their inputs, their rows and measures, and where results are kept."""
