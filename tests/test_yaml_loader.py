"""params.yaml is read as DVC reads it, or refused: what DVC records is what a training uses."""

import contextlib
import warnings

import pytest
from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
from hypothesis import example, given, strategies as st

from densecl.config.yaml_loader import load_yaml

LITERALS = [
    "032",
    "010",
    "08",
    "007",
    "0777",
    "00",
    "-0",
    "-010",
    "+1",
    "0o17",
    "0o8",
    "0x1F",
    "0x_1F",
    "0xG",
    "0b11",
    "0b1_0",
    "1_000",
    "1__0",
    "_1",
    "1_000.5",
    "1,000",
    "1:30",
    "1:60",
    "1:30.5",
    "190:20:30.15",
    "+12:30",
    "1e3",
    "1.5e3",
    "1e-5",
    "1E5",
    "12e03",
    "-2E+05",
    "1e",
    ".5",
    "+.5",
    "-.5",
    "5.",
    "0.",
    "-0.0",
    ".5e3",
    ".inf",
    "-.inf",
    ".Inf",
    "NaN",
    "Infinity",
    "yes",
    "no",
    "on",
    "off",
    "y",
    "n",
    "Yes",
    "ON",
    "true",
    "True",
    "TRUE",
    "false",
    "null",
    "Null",
    "~",
    "'032'",
    '"1:30"',
    "2026-01-01",
    "2026-01-01T00:00:00Z",
]


def assert_read_as_by_dvc(text: str) -> None:
    """Equal values; a text that DVC refuses ([1:30], with the parser in C) misleads nobody."""
    with warnings.catch_warnings(), contextlib.suppress(YAMLFileCorruptedError):
        warnings.simplefilter("ignore")
        expected = parse_yaml(text, "params.yaml")
        assert repr(load_yaml(text)) == repr(expected)


@pytest.mark.parametrize("literal", LITERALS)
def test_literals_are_read_as_by_dvc(literal):
    for text in (f"a: {literal}\n", f"a: [{literal}]\n", f"%YAML 1.2\n---\na: {literal}\n"):
        assert_read_as_by_dvc(text)


@given(st.text("0123456789_:.eExXob+-", min_size=1, max_size=8))
@example("0_1:0")
def test_numbers_of_any_form_are_read_as_by_dvc(literal):
    try:
        load_yaml(f"a: [x{literal}, {literal}]\n")
    except ValueError:
        return  # a refused literal needs no second opinion
    assert_read_as_by_dvc(f"a: [{literal}]\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("%YAML 1.1\n---\nepochs: 032\n", "found %YAML 1.1, expected YAML 1.2"),
        ("%YAML 1.1\n---\nepochs: 1:30\n", "found %YAML 1.1, expected YAML 1.2"),
        ("epochs: 1\n...\n%YAML 1.1\n---\nseeds: 032\n", "found %YAML 1.1"),
        ("epochs: 1\nseeds: ! 032\n", "found tag ! in line 2"),
        ("epochs: !!float 1\n", "found tag tag:yaml.org,2002:float in line 1"),
    ],
)
def test_what_depends_on_the_parser_is_refused(text, reason):
    """DVC ignores %YAML 1.1 with ruamel's parser in C and reads 26 for 032 without it."""
    with pytest.raises(ValueError, match=reason):
        load_yaml(text)
