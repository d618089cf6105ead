"""The anchor: the champion that no later candidate may fall behind; the alias `anchor` shows it."""

from pipelines.gate.anchor import hash_validation_images
from pipelines.registry import champions, mlflow_client, registry
from pipelines.registry.mlflow_client import ANCHOR, CHAMPION, RegistryError
from pipelines.registry.registry import JUDGED_ON_TAG
from pipelines.schemas import Anchor, Champion

CHOSEN_ON_TAG = "anchor_validation_images"  # hash of those when a person chose a version


def resolve_anchor(name: str, named: int | None) -> Anchor | None:
    """The version `named` in params, or else the one last promoted by hand, or else the first
    champion; None before the first champion. RegistryError if the named one was never champion.
    """
    with mlflow_client.open_store() as client:
        current = mlflow_client.find_by_alias(client, name, CHAMPION)
        if current is None:
            return None
        number, by_hand = champions.find_anchor(champions.list_champions(client, name, current))
        version = mlflow_client.find_version(client, name, str(named) if named else number)
        if named and "promoted_at" not in version.tags and version.version != current.version:
            raise RegistryError(
                f"retraining.anchor: found {named}, expected a version that was champion; "
                f"`python -m pipelines promote {named} --why TEXT` makes it one"
            )
        recorded = version.tags.get(CHOSEN_ON_TAG) or version.tags.get(JUDGED_ON_TAG)
        if recorded is None and (images := hash_validation_images()):
            # Registered before this was recorded: the images of its first use as the anchor count.
            client.set_model_version_tag(name, version.version, CHOSEN_ON_TAG, images)
            recorded = images
        client.set_registered_model_alias(name, ANCHOR, version.version)
    return Anchor(
        version=str(version.version),
        origin="named in params" if named else "promoted by hand" if by_hand else "first champion",
        validation=recorded,
    )


def record_choice(name: str, version: str) -> None:
    """Record the validation images of now as those on which a person chose the version."""
    images = hash_validation_images()
    if images is not None:
        with mlflow_client.open_store() as client:
            client.set_model_version_tag(name, version, CHOSEN_ON_TAG, images)


def fetch_references(name: str, named: int | None) -> Champion:
    """The champion and the anchor; their files are written to models/champion and, if it is another
    version, models/anchor.
    """
    champion = registry.get_champion(name)
    if champion.version is None:
        return champion
    registry.fetch_model(name, champion.version, CHAMPION)
    anchor = resolve_anchor(name, named)
    if anchor is not None and anchor.version != champion.version:
        registry.fetch_model(name, anchor.version, ANCHOR)
    return champion.model_copy(update={"anchor": anchor})
