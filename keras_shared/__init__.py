"""Weight sharing in Keras, and the model zoo built from it.

`keras_shared.layers` has the layers, `keras_shared.zoo` the models, `keras_shared.tying` the
mechanism. The functions that people type are here, and are imported when they are first used, so
that the command line can print its help without waiting for Keras.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_shared.exporting import export as export
    from keras_shared.presets.loading import load as load
    from keras_shared.presets.publishing import publish as publish
    from keras_shared.sharing import sharing_report as sharing_report
    from keras_shared.tying import TieError as TieError

__version__ = "0.1.0"

_HOMES = {
    "TieError": "keras_shared.tying",
    "export": "keras_shared.exporting",
    "load": "keras_shared.presets.loading",
    "publish": "keras_shared.presets.publishing",
    "sharing_report": "keras_shared.sharing",
}
_ROOMS = ("layers", "losses", "serving", "tying", "zoo")
__all__ = ["TieError", "export", "load", "publish", "sharing_report"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"keras_shared.{name}")
    raise AttributeError(f"module 'keras_shared' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_ROOMS])
