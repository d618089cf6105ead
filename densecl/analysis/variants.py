"""Variants against their bases: what the table of variants tests, as a family of its own."""

from densecl.analysis.claims import list_claims, select_cost_pairs
from densecl.analysis.results import Comparison


def list_variant_tests(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Place, variant and base of every score that the table of variants judges."""
    return [
        (claim.place, variant, base)
        for variant, base in comparison.variant_pairs
        for claim in list_claims(comparison)
        if comparison.get_difference(claim.place, variant, base)
    ]


def count_variant_tests(comparison: Comparison) -> int:
    """Size of the family, with the cost of each variant against its base."""
    costs = select_cost_pairs(comparison, comparison.variant_pairs)
    return len(list_variant_tests(comparison)) + len(costs)
