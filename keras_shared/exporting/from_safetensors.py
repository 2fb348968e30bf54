"""The weights of a safetensors file into a model whose ties are those of the file."""

import json
import math
import os
import pathlib
import re
import warnings

import keras
import numpy as np

from keras_shared.errors import boundary, printable
from keras_shared.exporting.named_weights import Reading, layers_with_lora, named_weights
from keras_shared.exporting.to_safetensors import ALPHAS, TIES
from keras_shared.files.bounded import regular_file
from keras_shared.files.limits import MOST_WEIGHTS_HEADER
from keras_shared.files.paths import as_path
from keras_shared.finite import refuse_undefined
from keras_shared.lookup import needed
from keras_shared.presets.names import LoadError
from keras_shared.tying import TieError, bind_ties
from keras_shared.tying.keep import Keep, check_keep
from keras_shared.tying.keras_private import expect_layer, flatten_layers

CODES = ("int8", "uint8")  # what weights are quantised to


def load_safetensors(
    model: keras.Model,
    filepath: str | os.PathLike[str],
    keep: Keep | None = None,
) -> None:
    """Load the weights of a safetensors file, each once, into a model that ties what the file ties.

    The file may be of `keras_shared.export`, or of another program that names weights as the
    model does (see there) and stores them as Keras does: a Dense kernel is (inputs, units). What
    it declares to be one weight must be one in the model. It may leave out the second name of a
    tied weight, as torch and transformers do, or hold both with equal values.

    Args:
        model: a built Keras model; its weights change only if all of them fit.
        filepath: the file.
        keep: whose values stay where a file holds two different ones for a tied weight: the
            source's or the reader's. None refuses.

    Warns:
        UserWarning: for a model with LoRA, if the file does not hold its `lora_alpha`.

    Raises:
        LoadError: if there is no such file, or it is damaged.
        ValueError: for names that are missing or unknown, other shapes, and dtypes that cannot be
            converted without loss (whole numbers of a quantised model), all in one message.
        TieError: the same, if ties of file and model differ too. It is a ValueError.
        ImportError: if safetensors is not installed; the message says how to get it.

    Example:
        >>> import tempfile
        >>> import keras_shared
        >>> from keras_shared.zoo import TiedAutoencoder
        >>> one, other = (TiedAutoencoder(units=(4, 2), input_dim=6) for _ in range(2))
        >>> file = keras_shared.export(one, tempfile.mkdtemp() + "/m.safetensors")
        >>> keras_shared.load_safetensors(other, file)
        >>> all((a == b).numpy().all() for a, b in zip(one.variables, other.variables))
        True

    Reference: https://huggingface.co/docs/safetensors/torch_shared_tensors
    """
    check_keep(keep)
    expect_layer(model)
    path = as_path(filepath, "filepath")
    held, metadata = _content(path)
    bind_ties(model)
    weights, readings = named_weights(model)
    fit = _Fit(weights, readings, held, metadata, keep)
    if fit.wrong:
        raise (TieError if fit.ties_differ else ValueError)(
            f"{path} does not fit '{model.name}', and nothing was loaded. "
            f"{printable(' '.join(fit.wrong))}"
        )
    refuse_undefined(
        ((weights[name], value) for name, value in fit.values.items()),
        str(path), LoadError, "Nothing was loaded. Take an earlier state.",
    )  # fmt: skip
    adapted, alphas = layers_with_lora(model, weights), _alphas(metadata)
    if unknown := [layer.name for name, layer in adapted.items() if name not in alphas]:
        warnings.warn(
            f"{path} does not say by what the LoRA of {unknown} is scaled: what the model has as "
            "`lora_alpha` stays. Set it on these layers, if it was another.",
            stacklevel=2,
        )
    for name, layer in adapted.items():
        layer.lora_alpha = alphas.get(name, layer.lora_alpha)  # which is no weight
    for name, value in fit.values.items():
        weights[name].assign(keras.ops.cast(value, weights[name].dtype))
    for layer in flatten_layers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # computes with what it once derived from its weights


def _alphas(metadata: dict[str, str]) -> dict[str, float]:
    with boundary(f"The metadata '{ALPHAS}' are not as keras_shared.export writes", LoadError):
        found = {name: float(a) for name, a in json.loads(metadata.get(ALPHAS, "{}")).items()}
        if not all(map(math.isfinite, found.values())):
            raise ValueError(f"numbers are expected. Received: {found}")
        return found


def _content(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file by name, and its metadata."""
    safetensors, _ = needed("safetensors", "safetensors", "safetensors.numpy")
    damaged = f"{path} is no safetensors file, or is damaged"
    with regular_file(path, LoadError) as (file, _), boundary(damaged, LoadError):
        size = int.from_bytes(file.read(8), "little")
        if size > MOST_WEIGHTS_HEADER:
            raise ValueError(f"its header has {size:,} bytes, and {MOST_WEIGHTS_HEADER:,} may be")
        with safetensors.safe_open(path, "np") as held:
            names = held.keys()
            return {name: held.get_tensor(name) for name in names}, held.metadata() or {}


class _Fit:
    """The value of each weight, and what is wrong, in sentences."""

    def __init__(
        self,
        weights: dict[str, keras.Variable],
        readings: dict[str, Reading],
        held: dict[str, np.ndarray],
        metadata: dict[str, str],
        keep: str | None,
    ) -> None:
        self._weights, self._readings, self._held, self._keep = weights, readings, held, keep
        self._declared = _declared(held, metadata)
        self.values: dict[str, np.ndarray] = {}
        self.wrong: list[str] = []
        self._compare_names(complete=TIES in metadata)
        for name in weights:
            self._choose(name)
        before = len(self.wrong)
        self._compare_ties(complete=TIES in metadata)
        self.ties_differ = len(self.wrong) > before

    def _names(self, name: str) -> list[str]:
        """Under which names the file holds a weight: its own first."""
        read = [n for n, r in self._readings.items() if r.source == name != n]
        return [n for n in (name, *read) if n in self._held]

    def _compare_names(self, complete: bool) -> None:
        """What is on one side alone; a file that names all of its ties must know all readers."""
        known = {*self._held, *self._declared}
        missing = [n for n in self._weights if n not in self._declared and not self._names(n)]
        if complete:
            missing += [n for n in self._readings if n not in known]
        unknown = sorted(known - {*self._weights, *self._readings})
        if missing:
            self.wrong.append(f"Missing in the file: {', '.join(missing)}.")
        if unknown:
            self.wrong.append(f"Not in the model: {', '.join(unknown)}.")
        if missing and sorted(map(_unnumbered, missing)) == sorted(map(_unnumbered, unknown)):
            self.wrong.append(
                "They differ in the numbers that Keras gives to layers without a name: name the "
                "layers, or call keras.utils.clear_session() before the model is built."
            )

    def _compare_ties(self, complete: bool) -> None:
        parted = []
        for name, (source, form, _) in self._declared.items():
            one, other = self._owner(name), self._owner(source)
            here = self._readings.get(name) or self._readings.get(source) or Reading(source)
            if one is None or other is None:
                continue  # not in the model
            if one != other:
                parted.append(f"'{name}' to '{source}' ({form or 'as is'})")
            elif form and form != here.form:
                self.wrong.append(
                    f"'{name}' reads '{source}' {form} in the file, and {here.form} in the model."
                )
        if parted:
            self.wrong.append(
                f"The file ties {', '.join(parted)}: in the model these are two weights. Load it "
                "into a model that has the ties (keras_shared.tie or keras_shared.tie_weights "
                "makes one); keras_shared.untie cuts them afterwards."
            )
        for name, reading in self._readings.items():
            if complete and reading.source == name not in self._declared and name in self._held:
                self.wrong.append(
                    f"'{name}' is read as is in the file, and {reading.form} in the model."
                )

    def _owner(self, name: str) -> str | None:
        reading = self._readings.get(name)
        return name if name in self._weights else reading.source if reading else None

    def _choose(self, name: str) -> None:
        """The value of a weight, from one of the names that the file holds it under."""
        variable, found = self._weights[name], {}
        for held in self._names(name):
            axes = self._readings[held].axes if held in self._readings else None
            if held in self._declared:
                axes = None  # a reader that was untied, and stores as its source does
            value, shape = self._held[held], tuple(variable.shape)
            expected = tuple(shape[axis] for axis in axes) if axes else shape
            if value.shape != expected:
                self.wrong.append(
                    f"'{held}' has shape {value.shape} in the file and {expected} in the model."
                )
            elif not _converts(str(value.dtype), str(variable.dtype)):
                self.wrong.append(
                    f"'{held}' is {value.dtype} in the file and {variable.dtype} in the model: "
                    f"{_how_to_convert(str(value.dtype), variable.dtype)}."
                )
            else:
                found[held] = value.transpose(np.argsort(axes)) if axes else value
        of_readers = [n for n in found if n != name]
        kept = {"source": [name], "reader": of_readers, None: list(found)}[self._keep]
        kept = [n for n in kept if n in found] or list(found)
        if any(not np.array_equal(found[n], found[kept[0]]) for n in kept[1:]):
            self.wrong.append(
                f"{' and '.join(map(repr, kept))} are one weight in the model, and hold different "
                "values in the file. Pass keep='source' to use the source's, or keep='reader' to "
                f"use the reader's. Received: keep={self._keep!r}"
            )
        elif kept:
            self.values[name] = found[kept[0]]


def _declared(held: dict[str, np.ndarray], metadata: dict[str, str]) -> dict[str, Reading]:
    """Which names a file says to be readings of others: its own list, or that of torch."""
    if TIES in metadata:
        with boundary(f"The metadata '{TIES}' are not as keras_shared.export writes", LoadError):
            ties = json.loads(metadata[TIES])
            return {
                str(name): Reading(f"{tie['source']}", f"{tie['form']}")
                for name, tie in ties.items()
            }
    # safetensors.torch.save_model: name that was left out -> name that was kept
    pairs = sorted(metadata.items())
    return {k: Reading(v, "") for k, v in pairs if v in held and k not in held}


def _converts(dtype: str, wanted: str) -> bool:
    return dtype == wanted or ("float" in dtype and "float" in wanted)


def _how_to_convert(dtype: str, wanted: str) -> str:
    if dtype in CODES and "float" in wanted:
        return "quantise the model as the one that was saved, before its weights are loaded"
    if "float" in dtype and wanted in CODES:
        return "load the file before the model is quantised"
    return f"convert the tensor in the file to {wanted}"


def _unnumbered(name: str) -> str:
    return re.sub(r"_\d+(?=\.|$)", "", name)
