"""Initial weights: timm's pretrained ones, or a file. Both are converted by timm, as if it had
downloaded them.
"""

import warnings
from textwrap import shorten

import huggingface_hub
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors import safe_open
from safetensors.torch import load_file
from timm.models import clean_state_dict, get_pretrained_cfg, load_state_dict_from_hf
from timm.models.beit import Beit
from timm.models.eva import Eva
from torch import Tensor

from densecl.config.params import NetworkParams
from densecl.network.create import Backbone, ModelError

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # in the order in which timm looks for them
NETWORK_TIMEOUT = 10.0  # s
# Parts of masked image modelling that no classifier has.
PRETRAINING_PARTS = ("mask_token", "lm_head.weight", "lm_head.bias")


def load_initial_weights(model: Backbone, network: NetworkParams) -> None:
    """Load the weights that `network` names; a classifier of another width is not loaded.

    Raises ModelError if they cannot be read or do not fit the model.
    """
    if network.checkpoint:
        try:
            state = load_file(network.checkpoint)
        except Exception as error:
            raise _build_file_error(network.checkpoint, error) from None
    else:
        state = _download_pretrained(network.model_name)
    weights = convert_weights(state, model, network)
    if len(weights.get("head.weight", ())) != model.num_classes:
        weights = {name: value for name, value in weights.items() if not name.startswith("head.")}
    model.load_state_dict(weights, strict=False)


def check_initial_weights(model: Backbone, network: NetworkParams) -> str:
    """A sentence on the weights of `network` if they fit with a reservation, else ''.

    Looks at names and shapes only. model: on the meta device. Raises ModelError if the weights are
    neither here nor to be downloaded, or do not fit.
    """
    shapes = _read_shapes(network)
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
        convert_weights(state, model, network)
    if not _lacks_norm(clean_state_dict(state), model):
        return ""
    return (
        f"{_name_source(network)}: fc_norm, of the mean of the patches, is used as the norm of all "
        f"tokens: these weights were not trained to classify by the CLS token"
    )


def convert_weights(
    state: dict[str, Tensor], model: Backbone, network: NetworkParams
) -> dict[str, Tensor]:
    """The weights of a model like `model` with the classifier of `state`, by timm's own filter.

    It knows other projects' names, and resamples position embeddings, patch embeddings and tables
    of relative positions. `state` on the meta device gives shapes only.
    """
    state = _place_norm(clean_state_dict(state), model)
    classes = _count_classes(state, network.model_name)
    source = {"state_dict": state, "num_classes": classes, "label_offset": 0, "custom_load": False}
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore", UserWarning)  # of torch, about the speed of the filter
            loaded = timm.create_model(
                network.model_name,
                pretrained=True,
                num_classes=classes,
                pretrained_cfg_overlay=source,
                **network.model_args,
            )
    except Exception as error:  # the filter fails in many ways on names that it does not expect
        raise ModelError(
            f"{_name_source(network)} does not fit {network.model_name} with model_args "
            f"{network.model_args}: {shorten(str(error), 400)}"
        ) from None
    weights: dict[str, Tensor] = loaded.state_dict()
    return weights


def _place_norm(state: dict[str, Tensor], model: Backbone) -> dict[str, Tensor]:
    """The final norm under the name that the model has for it.

    A model that averages patches has `fc_norm`, one that reads CLS has `norm`. timm's filter turns
    `norm` into `fc_norm` if there is a mask token, which suits the first only.
    """
    if "norm.weight" not in model.state_dict():
        return state
    if isinstance(model, Eva | Beit):
        state = {name: value for name, value in state.items() if name not in PRETRAINING_PARTS}
    if _lacks_norm(state, model):
        state = {
            name.replace("fc_norm.", "norm.") if name.startswith("fc_norm.") else name: value
            for name, value in state.items()
        }
    return state


def _lacks_norm(state: dict[str, Tensor], model: Backbone) -> bool:
    """Whether the model has `norm` where the weights have `fc_norm`."""
    return (
        "norm.weight" in model.state_dict()
        and "norm.weight" not in state
        and "fc_norm.weight" in state
    )


def _count_classes(state: dict[str, Tensor], model_name: str) -> int:
    """Width of the classifier of `state`; 0 without one."""
    if "head.weight" in state:
        return len(state["head.weight"])
    if any("visual." in name for name in state):  # CLIP: the filter makes its projection one
        cfg = get_pretrained_cfg(model_name)
        return cfg.num_classes if cfg else 0
    return 0


def _read_shapes(network: NetworkParams) -> dict[str, list[int]]:
    """Shapes by name of the weights of `network`; those not downloaded yet have timm's."""
    path = network.checkpoint or find_pretrained_file(network.model_name)
    if path and not path.endswith(".bin"):
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_slice(name).get_shape() for name in file.offset_keys()}
        except Exception as error:
            raise _build_file_error(path, error) from None
    with torch.device("meta"):
        model = timm.create_model(network.model_name)
    return {name: list(value.shape) for name, value in model.state_dict().items()}


def find_pretrained_file(model_name: str) -> str | None:
    """The cached file of timm's weights; None if it is not cached, but can be downloaded.

    ModelError if there are no weights, or no network.
    """
    repository = _get_repository(model_name)
    for file in HUB_FILES:
        path = huggingface_hub.try_to_load_from_cache(repository, file)
        if isinstance(path, str):
            return path
    try:
        url = huggingface_hub.hf_hub_url(repository, HUB_FILES[0])
        huggingface_hub.get_hf_file_metadata(url, timeout=NETWORK_TIMEOUT)
    except EntryNotFoundError:
        return None  # the network answered; timm takes the other file
    except Exception as error:  # of the HTTP client, no OSError
        raise _build_download_error(model_name, error) from None
    return None


def _download_pretrained(model_name: str) -> dict[str, Tensor]:
    """timm's weights for a model, from the cache or the network."""
    repository = _get_repository(model_name)
    try:
        state: dict[str, Tensor] = load_state_dict_from_hf(repository)
    except Exception as error:
        raise _build_download_error(model_name, error) from None
    return state


def _get_repository(model_name: str) -> str:
    """Where timm's weights for a model are; ModelError if it has none."""
    cfg = get_pretrained_cfg(model_name)
    if cfg is None or not cfg.hf_hub_id:
        raise ModelError(
            f"network.pretrained: timm has no weights for {model_name}; expected a name of "
            f"timm.list_pretrained(): set pretrained to false, or network.checkpoint to a file"
        )
    return str(cfg.hf_hub_id)


def _build_download_error(model_name: str, error: Exception) -> ModelError:
    cache, repository = huggingface_hub.constants.HF_HUB_CACHE, _get_repository(model_name)
    return ModelError(
        f"network.pretrained: the weights of {model_name} are not in {cache} and cannot be "
        f"downloaded ({shorten(str(error), 150) or type(error).__name__}); fetch "
        f"https://huggingface.co/{repository}/resolve/main/{HUB_FILES[0]} elsewhere, then set "
        f"network: {{pretrained: false, checkpoint: {HUB_FILES[0]}}}"
    )


def _build_file_error(path: str, error: Exception) -> ModelError:
    return ModelError(f"network.checkpoint: {path} cannot be read as safetensors: {error}")


def _name_source(network: NetworkParams) -> str:
    if network.checkpoint:
        return f"network.checkpoint: {network.checkpoint}"
    return f"network.pretrained: what timm has for {network.model_name}"
