"""Each project has a ZenML store of its own, also after it was moved or copied."""

import os

import pytest
import yaml

from densecl.errors import DenseclError
from pipelines.runtime import zenml_env


@pytest.mark.parametrize(
    ("url", "stays"),
    [
        ("sqlite:////other/project/.zenml/local_stores/default_zen_store/zenml.db", False),
        ("sqlite:///{here}/.zenml/local_stores/default_zen_store/zenml.db", True),
        ("sqlite:////shared/by/choice.db", True),
        ("https://zenml.example.org", True),
    ],
)
def test_the_store_is_the_one_in_the_project(tmp_path, monkeypatch, url, stays):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {})
    file = tmp_path / ".zenml/config.yaml"
    file.parent.mkdir()
    given = {"active_stack_id": "a", "store": {"url": url.format(here=tmp_path)}}
    file.write_text(yaml.safe_dump(given))
    zenml_env.configure_environment()
    assert yaml.safe_load(file.read_text()) == (given if stays else {"active_stack_id": "a"})
    assert os.environ["ZENML_CONFIG_PATH"] == str(tmp_path / ".zenml")


@pytest.mark.parametrize("text", ["a: [", "- a"])
def test_a_configuration_that_is_not_yaml_is_reported(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {})
    (tmp_path / ".zenml").mkdir()
    (tmp_path / ".zenml/config.yaml").write_text(text)
    with pytest.raises(
        DenseclError, match=r"config\.yaml: not readable as a YAML mapping; remove it"
    ):
        zenml_env.configure_environment()
