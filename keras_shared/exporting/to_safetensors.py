"""The weights of a model as a safetensors file: each once, with the names that share it."""

import json
import pathlib

import keras
import numpy as np

from keras_shared.exporting.named_weights import layers_with_lora, named_weights
from keras_shared.files.atomic import replacing
from keras_shared.lookup import needed
from keras_shared.tying import bind_ties

TIES = "keras_shared"  # key of the metadata: which name reads which weight, and how, as JSON
ALPHAS = "lora_alpha"  # another one: name of a layer's first factor -> what scales both, as JSON


def write_safetensors(model: keras.Model, path: pathlib.Path) -> None:
    """Write the weights of `model`, as Keras stores them, to one file.

    Args:
        model: a built Keras model.
        path: the file to write or to replace.

    Raises:
        ImportError: if safetensors is not installed.
        ValueError: if the model has no weights.
        TieError: if a source lies outside of the model.
    """
    save = needed("safetensors", "safetensors", "safetensors.numpy")[1].save
    bind_ties(model)  # or a weight that is read would be missing
    weights, readings = named_weights(model)
    metadata = {"format": "pt"}  # earlier transformers load no file without it
    # as safetensors.torch.save_model names what it leaves out: the same numbers in the same order
    metadata |= {
        name: r.source for name, r in readings.items() if r.axes is None and name not in weights
    }
    ties = {name: {"source": r.source, "form": r.form} for name, r in readings.items()}
    metadata[TIES] = json.dumps(ties)
    if alphas := {
        name: float(layer.lora_alpha) for name, layer in layers_with_lora(model, weights).items()
    }:
        metadata[ALPHAS] = json.dumps(alphas)
    values = {  # safetensors 0.8 takes the memory of an array for rows, whatever its order
        name: np.asarray(keras.ops.convert_to_numpy(v), order="C") for name, v in weights.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
        scratch.write_bytes(save(values, metadata))  # save_file of 0.8 lets nobody else read it
