"""What linear layers and neighbours read from the frozen features of a model."""
