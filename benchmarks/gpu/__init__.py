"""What only a GPU can show, in one run: `python -m benchmarks.gpu`."""
