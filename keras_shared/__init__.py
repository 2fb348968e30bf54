"""Weight sharing in Keras, and the model zoo built from it.

`keras_shared.layers` has the layers, `keras_shared.zoo` the models, `keras_shared.tying` the
mechanism. What is here is imported when it is first used, so that the command line can print its
help without waiting for Keras.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_shared.errors import KerasSharedError as KerasSharedError
    from keras_shared.exporting import export as export
    from keras_shared.exporting import load_safetensors as load_safetensors
    from keras_shared.gallery import Gallery as Gallery
    from keras_shared.presets.loading import load as load
    from keras_shared.presets.names import LoadError as LoadError
    from keras_shared.presets.names import list_presets as list_presets
    from keras_shared.presets.publishing import PublishError as PublishError
    from keras_shared.presets.publishing import publish as publish
    from keras_shared.sharing import cluster as cluster
    from keras_shared.sharing import draw_sharing as draw_sharing
    from keras_shared.sharing import load_weights as load_weights
    from keras_shared.sharing import resize_vocabulary as resize_vocabulary
    from keras_shared.sharing import sharing_report as sharing_report
    from keras_shared.sharing import unshare as unshare
    from keras_shared.sharing.find_ties import find_ties as find_ties
    from keras_shared.sharing.to_convolutional import to_convolutional as to_convolutional
    from keras_shared.sharing.tying_existing import tie_weights as tie_weights
    from keras_shared.signals import signal_report as signal_report
    from keras_shared.tying.check_ties import check_ties as check_ties
    from keras_shared.tying.tie_error import TieError as TieError
    from keras_shared.tying.untie import tie as tie
    from keras_shared.tying.untie import untie as untie

__version__ = "0.2.0"

_HOMES = {
    "Gallery": "keras_shared.gallery",
    "KerasSharedError": "keras_shared.errors",
    "LoadError": "keras_shared.presets.names",
    "PublishError": "keras_shared.presets.publishing",
    "TieError": "keras_shared.tying",
    "check_ties": "keras_shared.tying",
    "cluster": "keras_shared.sharing",
    "draw_sharing": "keras_shared.sharing",
    "export": "keras_shared.exporting",
    "find_ties": "keras_shared.sharing",
    "list_presets": "keras_shared.presets.names",
    "load": "keras_shared.presets.loading",
    "load_safetensors": "keras_shared.exporting",
    "load_weights": "keras_shared.sharing",
    "publish": "keras_shared.presets.publishing",
    "resize_vocabulary": "keras_shared.sharing",
    "sharing_report": "keras_shared.sharing",
    "signal_report": "keras_shared.signals",
    "tie": "keras_shared.tying",
    "tie_weights": "keras_shared.sharing",
    "to_convolutional": "keras_shared.sharing",
    "unshare": "keras_shared.sharing",
    "untie": "keras_shared.tying",
}
_PACKAGES = (
    "arguments", "batching", "cli", "comparing", "datasets", "demo", "eager", "errors",
    "evaluation", "exporting", "files", "finite", "gallery", "initializers", "layers", "lookup",
    "losses", "presets", "processes", "quiet", "recipes", "section", "serving", "sharing",
    "signals", "signature", "start", "tasks", "terminal", "text", "tokenizing", "training",
    "tying", "zoo",
)  # fmt: skip
__all__ = [*sorted(_HOMES)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        if _HOMES[name] not in ("keras_shared.errors", "keras_shared.presets.names"):  # no Keras
            importlib.import_module("keras_shared.start")
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"keras_shared.{name}")
    raise AttributeError(f"module 'keras_shared' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_PACKAGES])
