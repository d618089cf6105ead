"""Dense, global and no contrastive learning of vision transformers, compared under distribution
shift.
"""
