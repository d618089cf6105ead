"""The stack of champions: the registered model's tag `champions`, the oldest version first.

`promote` puts a version on top, `rollback` takes one off. BY_HAND follows the versions that a
person promoted: the newest of them, or else the first champion, is the anchor.
"""

from typing import Any

from pipelines.registry import mlflow_client
from pipelines.registry.mlflow_client import CHAMPION
from pipelines.schemas import Promotion

CHAMPIONS_TAG = "champions"
PROMOTION_TAG = "promotion"  # of the registered model: one that is not finished
BY_HAND = "*"


def format_entry(version: Any, by_hand: bool) -> str:
    return f"{version.version}{BY_HAND if by_hand else ''}"


def get_number(entry: str) -> str:
    """Version of an entry of the stack."""
    return entry.removesuffix(BY_HAND)


def list_champions(client: Any, name: str, current: Any) -> list[str]:
    """Entries up to the current champion, oldest first.

    The alias decides. Entries after it were left by an interrupted promotion or rollback; an alias
    that was moved by hand, in MLflow's interface, adds one champion.
    """
    entries = (client.get_registered_model(name).tags.get(CHAMPIONS_TAG) or "").split()
    if current is None:
        return entries
    number = str(current.version)
    numbers = [get_number(entry) for entry in entries]
    if number not in numbers:
        return [*entries, format_entry(current, by_hand=True)]
    return entries[: len(entries) - numbers[::-1].index(number)]


def find_anchor(entries: list[str]) -> tuple[str, bool]:
    """Version of the anchor, and whether a person promoted it."""
    by_hand = [entry for entry in entries if entry.endswith(BY_HAND)]
    return get_number((by_hand or entries[:1])[-1]), bool(by_hand)


def make_champion(client: Any, version: Any, entries: list[str], promotion: Promotion) -> None:
    """Make the version of the last entry champion; RegistryError if its files are corrupt. A kill
    before the alias moves leaves the old champion; of one afterwards `record_promotion` finds what
    it has to do in the tag `promotion`.
    """
    text = promotion.model_copy(update={"entries": tuple(entries)}).model_dump_json()
    with mlflow_client.fetch_verified_files(client, version):
        client.set_registered_model_tag(version.name, PROMOTION_TAG, text)
    client.set_registered_model_tag(version.name, CHAMPIONS_TAG, " ".join(entries))
    client.set_registered_model_alias(version.name, CHAMPION, version.version)
    record_promotion(client, version.name)


def record_promotion(client: Any, name: str) -> Promotion | None:
    """Record on its versions the promotion or rollback that moved the alias, if that is not done;
    None without one that waits for the rest (`finish_promotion`).
    """
    model = mlflow_client.get_or_none(client.get_registered_model, name)
    if model is None or PROMOTION_TAG not in model.tags:
        return None
    promotion = Promotion.model_validate_json(model.tags[PROMOTION_TAG])
    current = mlflow_client.find_by_alias(client, name, CHAMPION)
    if current is None or str(current.version) != promotion.version:  # killed before it moved
        client.delete_registered_model_tag(name, PROMOTION_TAG)
        return None
    # The alias tells nothing where a person chose the champion that there was.
    client.set_registered_model_tag(name, CHAMPIONS_TAG, " ".join(promotion.entries))
    reason = promotion.why
    if promotion.rolled_back:
        former = mlflow_client.find_version(client, name, promotion.rolled_back)
        _record_action(client, former, "rolled_back", promotion, reason)
        reason = f"rollback from version {promotion.rolled_back}: {reason}"
    _record_action(client, current, "promoted", promotion, reason)
    return promotion


def forget_promotion(client: Any, name: str) -> None:
    """All that follows the alias is done."""
    client.delete_registered_model_tag(name, PROMOTION_TAG)


def _record_action(client: Any, version: Any, action: str, done: Promotion, why: str) -> None:
    """Tags of the newest promotion or rollback, and one line each in the tag `history`, which is
    written last and once.
    """
    line = f"{done.at} {action.replace('_', ' ')} by {done.who}: {' '.join(why.split())}"
    history = (version.tags.get("history") or "").split("\n")
    if line in history:
        return
    tags = {
        f"{action}_by": done.who,
        f"{action}_why": why,
        f"{action}_at": done.at,
        "history": "\n".join(filter(None, [*history, line])),
    }
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)
