"""The anchor in the registry: the first champion until a person promotes another, and the data that
later images are compared with.
"""

import shutil

import pandas as pd
import pytest

from densecl import paths
from densecl.config.params import Params, load_params
from densecl.datasets.storage.manifest import write_manifest
from pipelines.gate.anchor import hash_validation_images
from pipelines.gate.change_text import format_changes
from pipelines.registry import commands, data_profiles, mlflow_client, registry
from pipelines.registry.anchor import CHOSEN_ON_TAG, fetch_references, resolve_anchor
from pipelines.registry.mlflow_client import ANCHOR, CHAMPION, RegistryError
from pipelines.schemas import Anchor, RegisteredVersion
from tests.pipelines.conftest import verdict
from tests.pipelines.test_drift import manifest

NAME = "densecl-vit"


def add(trained, fingerprint: str, validation: str | None = "images", promoted=True) -> str:
    """A candidate that the gate judged on these validation images."""
    judged = verdict(promoted).model_copy(update={"validation": validation})
    made = registry.register_model(NAME, trained(fingerprint), judged, {})
    if promoted:
        registry.promote_version(NAME, made.version, "ann", "the gate")
    return made.version


def anchor(named: int | None = None) -> tuple[str, str]:
    found = resolve_anchor(NAME, named)
    assert found is not None
    assert registry.resolve_version(NAME, ANCHOR)[0] == found.version  # the alias shows it
    return found.version, found.origin


@pytest.mark.slow
def test_the_first_champion_is_the_anchor_whatever_the_gate_promotes(trained):
    add(trained, "refused", promoted=False)
    assert resolve_anchor(NAME, None) is None
    for fingerprint in ("first", "second", "third"):
        add(trained, fingerprint)
        assert anchor() == ("2", "first champion")


@pytest.mark.slow
def test_who_promotes_by_hand_chooses_the_anchor(trained):
    for fingerprint in ("first", "second", "third"):
        add(trained, fingerprint)
    commands.promote("2", "checked", "bob")
    assert anchor() == ("2", "promoted by hand")
    add(trained, "fourth")
    assert anchor() == ("2", "promoted by hand")
    commands.promote("4", "checked", "bob")  # champion already, by the gate
    assert anchor() == ("4", "promoted by hand")
    assert registry.get_champion(NAME).version == "4"
    assert registry.rollback_champion(NAME, "bob", "worse in use") == "2"
    assert anchor() == ("2", "promoted by hand")


@pytest.mark.slow
def test_a_rollback_takes_the_anchor_back_with_the_champion(trained):
    for fingerprint in ("first", "second", "third"):
        add(trained, fingerprint)
    commands.promote("1", "as it was", "bob")
    commands.promote("3", "checked", "bob")
    commands.rollback("worse in use", "bob")
    assert anchor() == ("1", "promoted by hand")
    commands.rollback("worse in use", "bob")
    assert anchor() == ("1", "first champion")
    assert registry.get_champion(NAME).version == "3"
    add(trained, "fourth")  # by the gate, in the place that was promoted by hand
    assert anchor() == ("1", "first champion")


@pytest.mark.slow
def test_a_champion_chosen_on_mlflows_page_is_chosen_by_hand(trained, client):
    for fingerprint in ("first", "second"):
        add(trained, fingerprint)
    add(trained, "third", promoted=False)
    client.set_registered_model_alias(NAME, CHAMPION, "3")
    assert anchor() == ("3", "promoted by hand")
    add(trained, "fourth")
    assert anchor() == ("3", "promoted by hand")


def test_params_name_the_anchor(trained):
    for fingerprint in ("first", "second"):
        add(trained, fingerprint)
    add(trained, "refused", promoted=False)
    commands.promote("1", "checked", "bob")
    assert anchor(2) == ("2", "named in params")
    with pytest.raises(
        RegistryError, match=r"retraining\.anchor: found 3, expected a version that was champion"
    ):
        resolve_anchor(NAME, 3)
    with pytest.raises(RegistryError, match="found no version 9"):
        resolve_anchor(NAME, 9)


def test_its_files_lie_beside_those_of_the_champion(trained):
    assert fetch_references(NAME, None).version is None
    add(trained, "first")
    folder = paths.model_folder(paths.ANCHOR, 0)
    found = fetch_references(NAME, None)
    assert (found.version, found.anchor.version, folder.exists()) == ("1", "1", False)
    add(trained, "second")
    found = fetch_references(NAME, None)
    assert (found.version, found.anchor.version) == ("2", "1")
    for model, version in ((paths.CHAMPION, "2"), (paths.ANCHOR, "1")):
        tags = registry.resolve_version(NAME, version)[1]
        path = paths.model_folder(model, 0) / "config.json"
        assert mlflow_client.hash_file(path) == tags["sha256.config.json"]


def write_images(frame: pd.DataFrame) -> str | None:
    write_manifest(frame, paths.manifest_file("imagenet"))
    return hash_validation_images()


@pytest.mark.slow
def test_the_validation_images_of_the_choice_count(trained):
    first = write_images(manifest("imagenet"))
    add(trained, "first", validation=first)
    assert resolve_anchor(NAME, None).validation == first
    second = write_images(manifest("imagenet", per_class=20))
    assert resolve_anchor(NAME, None).validation == first != second
    commands.promote("1", "checked on the new images", "bob")
    assert resolve_anchor(NAME, None) == Anchor(
        version="1", origin="promoted by hand", validation=second
    )


def test_an_anchor_of_before_counts_from_its_first_use(trained):
    """Versions registered before validation images were recorded."""
    add(trained, "first", validation=None)
    assert resolve_anchor(NAME, None).validation is None
    images = write_images(manifest("imagenet"))
    assert resolve_anchor(NAME, None).validation == images
    write_images(manifest("imagenet", per_class=20))
    assert resolve_anchor(NAME, None).validation == images
    assert registry.resolve_version(NAME, "1")[1][CHOSEN_ON_TAG] == images


def test_candidates_on_the_same_validation_images_are_counted_once_each(trained):
    def change_weights(fingerprint: str) -> None:
        path = trained(fingerprint) / "model.safetensors"
        path.write_bytes(path.read_bytes() + fingerprint.encode())

    def count(validation: str | None) -> int:
        return registry.count_candidates(NAME, paths.model_folder("dense", 0), validation)

    change_weights("first")
    assert count("a") == 1
    for number, (fingerprint, images) in enumerate(
        (("first", "a"), ("second", "a"), ("third", "b"))
    ):
        change_weights(fingerprint)
        judged = verdict(promoted=False).model_copy(
            update={"validation": images, "said": str(number)}
        )
        registry.register_model(NAME, paths.model_folder("dense", 0), judged, {})
    change_weights("first")
    assert (count("a"), count("b"), count("c"), count(None)) == (2, 2, 1, 1)
    change_weights("fourth")
    assert count("a") == 3


@pytest.fixture
def params(project) -> Params:
    """Params whose datasets all have a manifest, with a baseline."""
    found = load_params(paths.PARAMS)
    for name in found.datasets:
        write_manifest(manifest(name, per_class=40), paths.manifest_file(name))
    return found


def darken(params: Params, factor: float) -> None:
    for name in params.datasets:
        frame = manifest(name, per_class=40)
        frame["brightness"] *= factor
        write_manifest(frame, paths.manifest_file(name))


def remember(trained, params: Params, fingerprint: str, promoted: bool = True) -> None:
    """What `register` leaves of a judged candidate."""
    version = add(trained, fingerprint, promoted=promoted)
    made = RegisteredVersion(name=NAME, version=version, promoted=promoted)
    data_profiles.attach_profile(params, made)
    shutil.rmtree(paths.BASELINE, ignore_errors=True)
    paths.BASELINE.mkdir(parents=True)
    for name in params.datasets:
        shutil.copy(paths.manifest_file(name), paths.baseline_file(name))


def list_shifts(params: Params) -> dict[str, float]:
    found = data_profiles.detect_changes(params).references
    return {each.reference: each.psi["brightness"] for each in found if each.dataset == "imagenet"}


@pytest.mark.slow
def test_drift_that_is_small_each_week_is_seen_against_older_data(trained, params, capsys):
    """Ten weeks, each a little darker; the champion is of the fourth."""
    assert data_profiles.detect_changes(params).references == ()
    weekly = []
    for week in range(10):
        darken(params, 0.95**week)
        if week:
            changes = data_profiles.detect_changes(params)
            weekly.append(next(s for s in changes.sets if s.dataset == "imagenet"))
        remember(trained, params, f"week {week}", promoted=week in (0, 4))
    assert max(each.psi["brightness"] for each in weekly) < 0.1
    shifts = list_shifts(params)
    assert shifts["first baseline"] > shifts["champion's data"] > 0.25
    changes = data_profiles.detect_changes(params)
    assert not changes.has_changes or changes.params
    text = format_changes(changes)
    assert "imagenet against the first baseline (version 1): " in text
    assert "imagenet against the champion's data (version 5): " in text
    commands.promote("10", "checked", "bob")
    assert list_shifts(params)["champion's data"] == 0.0
    assert "warning" not in capsys.readouterr().err


def test_the_first_champion_is_named_once(trained, params):
    remember(trained, params, "first")
    assert list_shifts(params) == {"champion's data, the first baseline": 0.0}


def test_versions_without_a_profile_and_new_datasets_have_nothing_to_compare_with(trained, params):
    add(trained, "of before")
    assert data_profiles.detect_changes(params).references == ()
    remember(trained, params, "second")
    values = params.model_dump(mode="json", by_alias=True)
    values["datasets"]["new"] = {"root": "new", "tracked_by": "new"}
    more = Params.model_validate(values)
    write_manifest(manifest("new"), paths.manifest_file("new"))
    found = data_profiles.detect_changes(more)
    (added,) = (each for each in found.references if each.dataset == "new")
    assert (added.before, added.psi, added.classes_new) == (None, {}, ())
    assert "new against the champion's data, the first baseline (version 2): nothing to" in (
        format_changes(found)
    )


def test_a_registry_that_is_down_is_a_warning(params, monkeypatch, capsys, tmp_path):
    (tmp_path / "damaged.db").write_bytes(b"no database" * 1000)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/damaged.db")
    assert data_profiles.detect_changes(params).references == ()
    assert "warning: drift from the champion's data is unknown: " in capsys.readouterr().err


def test_of_another_store_only_the_attachment_is_read(trained, params, client, monkeypatch):
    remember(trained, params, "first")
    version = mlflow_client.find_version(client, NAME, "1")
    local = mlflow_client.read_attachment(client, version, data_profiles.PROFILE)
    monkeypatch.setattr(mlflow_client, "_find_local_folder", lambda _: None)
    monkeypatch.setattr(mlflow_client, "open_files", None)
    assert mlflow_client.read_attachment(client, version, data_profiles.PROFILE) == local
    assert mlflow_client.read_attachment(client, version, "no such file") is None
