"""What follows a move of the alias `champion`: done after each, or at the next start."""

from pipelines.registry import anchor, champions, mlflow_client, registry
from pipelines.schemas import Anchor


def finish_promotion(name: str, named_anchor: int | None) -> Anchor | None:
    """Do what is left of the newest promotion or rollback: the records on its versions, the
    validation images of a choice by hand, the card and the alias `anchor`; return the anchor. None
    if nothing is left. `named_anchor` is `retraining.anchor` of params.
    """
    with mlflow_client.open_store() as client:
        promotion = champions.record_promotion(client, name)
        if promotion is None:
            return None
        if promotion.by_hand:
            anchor.record_choice(name, promotion.version)
        registry.fetch_card(name, promotion.version)
        try:
            return anchor.resolve_anchor(name, named_anchor)
        finally:  # an anchor that params name wrongly is reported once
            champions.forget_promotion(client, name)
