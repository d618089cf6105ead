"""Variants against their bases: what the table of variants tests, as a family of its own."""

from densecl.analysis.claims import Pair, list_claims
from densecl.analysis.results import Comparison


def list_variant_tests(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Place, variant and base of every score that the table of variants judges."""
    return [
        (claim.place, variant, base)
        for variant, base in comparison.variant_pairs
        for claim in list_claims(comparison)
        if comparison.get_difference(claim.place, variant, base)
    ]


def list_variant_costs(comparison: Comparison) -> list[Pair]:
    """The variants whose cost the table judges, with their bases."""
    cost = comparison.cost
    if cost is None or not cost.is_measured:
        return []
    return [(a, b) for a, b in comparison.variant_pairs if a in cost.modes and b in cost.modes]


def count_variant_tests(comparison: Comparison) -> int:
    """Size of the family."""
    return len(list_variant_tests(comparison)) + len(list_variant_costs(comparison))
