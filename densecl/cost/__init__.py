"""The cost of a mode: time and memory of its training step, measured alone on the machine."""
