"""Initialisers by the name that a recipe gives them. A new one is a file and a line here.

Keras' own stand beside them: 'glorot_uniform', 'he_normal', 'orthogonal' and the rest.
"""

from collections.abc import Callable
from typing import Annotated, Any

import keras
from pydantic import AfterValidator

from keras_shared.errors import attempt, boundary
from keras_shared.initializers.lsuv import LSUV as LSUV
from keras_shared.initializers.lsuv import rescale as rescale
from keras_shared.initializers.svd import SVD as SVD
from keras_shared.initializers.tied_scaling import TiedScaling as TiedScaling
from keras_shared.initializers.tied_scaling import tied_scale as tied_scale
from keras_shared.lookup import UnknownNameError, find


def _delta_orthogonal() -> keras.initializers.Initializer:
    return SVD(delta=True)


def _standard_uniform() -> keras.initializers.Initializer:
    """`U(-1 / sqrt(n), 1 / sqrt(n))` with `n` inputs: Glorot & Bengio 2010, equation 1."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


INITIALIZERS: dict[str, Callable[[], keras.initializers.Initializer]] = {
    "delta_orthogonal": _delta_orthogonal,
    "standard_uniform": _standard_uniform,
    "svd": SVD,
    "tied_scaling": TiedScaling,
}


def get(identifier: Any) -> Any:
    """As `keras.initializers.get`, with the names of `INITIALIZERS` and `package.module:NAME`.

    An object is given back as a copy where it can be: of Keras' own, the same object gives the same
    numbers to all layers of one shape.

    Args:
        identifier: a name, a config, or an initialiser.

    Raises:
        UnknownNameError: for a name that stands for none. It is a ValueError.

    Example:
        >>> from keras_shared import initializers
        >>> type(initializers.get("svd")).__name__, type(initializers.get("he_normal")).__name__
        ('SVD', 'HeNormal')
    """
    if isinstance(identifier, str):
        what = f"The initialiser '{identifier}' cannot be made without arguments"
        with boundary(what, UnknownNameError, "Name an object in place of the class."):
            if identifier not in INITIALIZERS and ":" not in identifier:
                found, unknown = attempt(lambda: keras.initializers.get(identifier), ValueError)
                if not unknown:
                    return found
                own = {"glorot_uniform", "he_normal", "lecun_normal", "orthogonal", "zeros"}
                find(identifier, INITIALIZERS, "initialiser", also=own)  # says which are near
            found = find(identifier, INITIALIZERS, "initialiser")
            return found() if isinstance(found, type) or identifier in INITIALIZERS else found
    found = keras.initializers.get(identifier)
    return found.clone() if isinstance(found, keras.initializers.Initializer) else found


def as_config(identifier: Any) -> Any:
    """What a config keeps of an initialiser: its name, or its own config, or None.

    Example:
        >>> from keras_shared import initializers
        >>> initializers.as_config("svd")
        'svd'
    """
    if isinstance(identifier, (str, dict, type(None))):
        return identifier
    # a class stands for an object that it makes without arguments, as in Keras
    return keras.initializers.serialize(keras.initializers.get(identifier))


def _known(name: str) -> str:
    get(name)
    return name


# as an argument of a model: a recipe is told at once of a name that stands for nothing
InitializerName = Annotated[str, AfterValidator(_known)]
