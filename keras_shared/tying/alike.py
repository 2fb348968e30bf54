"""Whether two layers compute the same with the same weights, by their configs."""

import re
from collections.abc import Mapping
from typing import Any

import keras

NOT_COMPARED = re.compile(
    r"name|trainable|frozen|seed|.*_initializer|(?!activity).*_regularizer|.*_constraint|lora_.*"
)


def differing(one: keras.Layer, other: keras.Layer) -> list[str]:
    """The arguments in which two layers differ, but for names, seeds and what training reads."""
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
        inner = config.get("layers")
        if isinstance(inner, list) and all(isinstance(one, dict) for one in inner):  # of a graph
            places = {str(one.get("name")): number for number, one in enumerate(inner)}
        found = {key: without_names(value, places) for key, value in config.items()}
        if {"name", "trainable"} <= set(config):  # of a layer
            return {key: v for key, v in found.items() if not NOT_COMPARED.fullmatch(key)}
        if "DTypePolicy" in str(config.get("class_name", "DTypePolicy")):
            return found  # a dtype is called by its name, and other dicts are arguments
        found.pop("name", None)
        if isinstance(found.get("config"), dict):  # an InputLayer is not trained
            found["config"] = {k: v for k, v in found["config"].items() if k != "name"}
        return found
    if isinstance(config, (list, tuple)):
        # name of a layer, number of its call, number of the output
        if len(config) == 3 and isinstance(config[0], str) and config[0] in places:
            return [places[config[0]], *config[1:]]
        return [without_names(one, places) for one in config]
    return config
