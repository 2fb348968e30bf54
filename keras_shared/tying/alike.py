"""Whether two layers compute the same with the same weights, by their configs."""

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

NOT_COMPARED = re.compile(
    r"name|trainable|frozen|.*_initializer|(?!activity).*_regularizer|.*_constraint|lora_.*|"
    r"batch_shape|build_input_shape"  # of inputs: those of weights are compared
)
OF_A_SOURCE = {"class_name", "weight_shape"}  # what a reader's config says of its source, and more


def differing(one: keras.Layer, other: keras.Layer) -> list[str]:
    """The arguments in which two layers differ, but for names and what training alone reads."""
    first, second = (without_names(layer.get_config()) for layer in (one, other))
    return [
        key
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key) and not NOT_COMPARED.fullmatch(key)
    ]


def without_names(config: Any, places: Mapping[str, int] | None = None) -> Any:
    """A config of layers in layers, without what Keras calls those inside.

    Args:
        config: of a layer, or a part of it.
        places: name of each layer of the graph that it is a part of, with its number.
    """
    places = places or {}
    if isinstance(config, dict):
        return _of_dict(config, places)
    if isinstance(config, (list, tuple)):
        # name of a layer, number of its call, number of the output
        if len(config) == 3 and isinstance(config[0], str) and config[0] in places:
            return [places[config[0]], *config[1:]]
        return [without_names(one, places) for one in config]
    if isinstance(config, keras.Layer):  # of a layer that does not serialise its arguments
        return [type(config).__name__, without_names(config.get_config(), places)]
    if isinstance(config, keras.initializers.Initializer):
        return None
    return config.tolist() if isinstance(config, np.ndarray) else config


def _of_dict(config: dict[str, Any], places: Mapping[str, int]) -> Any:
    if "initializers" in str(config.get("module")):
        return None
    if set(config) >= OF_A_SOURCE:
        told = {
            key: config[key] for key in config if key not in ("name", "id", "upstream", "apart")
        }
        return {**told, "place": places.get(str(config.get("name")))}
    inner = config.get("layers")
    if isinstance(inner, list) and all(isinstance(one, dict) for one in inner):  # of a graph
        places = {str(one.get("name")): number for number, one in enumerate(inner)}
    found = {key: without_names(value, places) for key, value in config.items()}
    if {"name", "trainable"} <= set(config):  # of a layer
        return {key: v for key, v in found.items() if not NOT_COMPARED.fullmatch(key)}
    if "DTypePolicy" in str(config.get("class_name", "DTypePolicy")):
        return found  # a dtype is called by its name, and other dicts are arguments
    for key in ("name", "build_config"):  # the shapes on which it was called first
        found.pop(key, None)
    if isinstance(found.get("config"), dict):  # an InputLayer is not trained
        found["config"] = {
            k: v for k, v in found["config"].items() if not NOT_COMPARED.fullmatch(k)
        }
    return found
