"""Dense, global and no contrastive learning of vision transformers, compared for robustness."""

__version__ = "0.2.0"
