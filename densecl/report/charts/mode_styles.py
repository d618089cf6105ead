"""Colours and markers of modes in charts and on pages: the three, and any number of variants."""

from collections.abc import Iterable
from typing import NamedTuple

# Okabe and Ito's blue and vermilion with a neutral grey: any colour vision tells them apart; so do
# the markers.
COLOURS = {"dense": "#0072b2", "global": "#d55e00", "none": "#7a7a7a"}
MARKERS = {"dense": "o", "global": "s", "none": "^"}


class VariantColour(NamedTuple):
    light: str  # on a light page, and in charts
    dark: str


class VariantShape(NamedTuple):
    marker: str  # of matplotlib
    polygon: str  # of CSS


# Variants go through the colours, then through the shapes.
VARIANT_COLOURS = (
    VariantColour("#00805d", "#2fc697"),
    VariantColour("#a8518a", "#e09cc4"),
    VariantColour("#946800", "#e0b040"),
    VariantColour("#2b7fb0", "#8fd0f5"),
    VariantColour("#8c4a2f", "#d0906f"),
    VariantColour("#6a51a3", "#b3a1e0"),
)
VARIANT_SHAPES = (
    VariantShape("D", "50% 0, 100% 50%, 50% 100%, 0 50%"),
    VariantShape("v", "0 0, 100% 0, 50% 100%"),
    VariantShape(
        "P",
        "33% 0, 67% 0, 67% 33%, 100% 33%, 100% 67%, 67% 67%, 67% 100%, 33% 100%, 33% 67%, 0 67%, "
        "0 33%, 33% 33%",
    ),
    VariantShape(
        "X",
        "20% 0, 50% 30%, 80% 0, 100% 20%, 70% 50%, 100% 80%, 80% 100%, 50% 70%, 20% 100%, 0 80%, "
        "30% 50%, 0 20%",
    ),
)


class ModeStyle(NamedTuple):
    """How a mode looks in charts (colour, marker) and on a page."""

    colour: str
    marker: str
    variable: str  # name of the colour in CSS, without the dashes
    css_class: str  # of its key in legends and tables


def style_modes(modes: Iterable[str]) -> dict[str, ModeStyle]:
    """The styles of all modes of a plan; those of variants follow from their order."""
    styles, variants = {}, 0
    for mode in modes:
        if mode in COLOURS:
            styles[mode] = ModeStyle(COLOURS[mode], MARKERS[mode], mode, mode)
            continue
        shape, colour = divmod(variants, len(VARIANT_COLOURS))
        shape %= len(VARIANT_SHAPES)
        variable = f"variant-{colour}"
        styles[mode] = ModeStyle(
            VARIANT_COLOURS[colour].light,
            VARIANT_SHAPES[shape].marker,
            variable,
            f"{variable} shape-{shape}",
        )
        variants += 1
    return styles


def list_variables() -> dict[str, str]:
    """Variable of CSS -> the colour in charts that a page replaces by it."""
    variants = {f"variant-{i}": colour.light for i, colour in enumerate(VARIANT_COLOURS)}
    return {**COLOURS, **variants}


def build_variant_css() -> str:
    """The variables and keys of variants, for the style of a page; those of the modes are there."""
    light, dark = (
        "; ".join(f"--variant-{i}: {colour[theme]}" for i, colour in enumerate(VARIANT_COLOURS))
        for theme in (0, 1)
    )
    rules = [
        f":root {{ {light} }}",
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}",
    ]
    for i in range(len(VARIANT_COLOURS)):
        rules += [
            f".key.variant-{i} {{ background: var(--variant-{i}) }}",
            f".bar.variant-{i} {{ color: var(--variant-{i}) }}",
        ]
    rules += [
        f".key.shape-{i} {{ border-radius: 0; clip-path: polygon({shape.polygon}) }}"
        for i, shape in enumerate(VARIANT_SHAPES)
    ]
    return "\n".join(rules)
