import inspect
import json
import os
from collections.abc import Collection, Iterator
from typing import Any, ClassVar, Self

import keras

import keras_shared.layers as _layers  # noqa: F401  (a saved tower may hold any of them)
from keras_shared.errors import KerasSharedError
from keras_shared.lookup import suggestion
from keras_shared.losses import LOSSES
from keras_shared.presets.names import list_presets
from keras_shared.presets.reading import read_model
from keras_shared.signature import Signature
from keras_shared.tying.keras_private import flatten_layers
from keras_shared.tying.normalization import renew_normalization
from keras_shared.tying.take_values import LOOKUPS


class _Presets:
    """The presets of a class, as an attribute of the class itself."""

    def __get__(self, model: Any, owner: type) -> dict[str, dict[str, Any]]:
        if model is not None:  # Keras' saving looks at every attribute of a model
            raise AttributeError("`presets` is an attribute of the class")
        wanted = set(_names(owner))
        return {name: p for name, p in list_presets().items() if p["class_name"] in wanted}


class UnfinishedError(KerasSharedError, AttributeError):
    """A class of models lacks what is asked of it; the message shows how to write it."""


class ToWrite:
    """What a subclass must give where it is asked for; the error shows how to write it."""

    def __init__(self, example: str) -> None:
        self.example = example

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, model: Any, owner: type) -> Any:
        raise UnfinishedError(f"{owner.__name__} has no `{self.name}`. Write {self.example}")


class ZooModel(keras.Model):
    """What the zoo's models have in common: presets, named signatures, an export that keeps ties.

    Each is an ordinary functional Keras model whose constructor arguments are its whole
    configuration, so that it is rebuilt, ties and all, from them. A new one is a file here with a
    subclass, and a line in `MODELS`; a recipe can train it then.

    `keras.models.clone_model` takes the graph of layers alone: what comes back has the ties, and
    is a plain functional model without the methods of its class (`verify`, `embed`). What keeps
    the class: `copy = type(model).from_config(model.get_config())`, and
    `copy.set_weights(model.get_weights())`.

    Attributes:
        task: name of its task in `keras_shared.tasks`.
        description: a sentence for its card; empty for none.
        limits: a sentence for its card on what it is not made for; empty for none.
        loss_names: losses that it can be trained with, as recipes name them.
        default_metrics: metrics of `compile()` without arguments.
        presets: published models of this class: name -> facts, as of `keras_shared.list_presets`.
    """

    task: ClassVar[Any] = ToWrite(
        'in the class: task = "classification", or another one of keras_shared.tasks.TASKS, or '
        "'package.module:NAME' of your own."
    )
    description: ClassVar[str] = ""
    limits: ClassVar[str] = ""
    loss_names: ClassVar[Any] = ToWrite(
        'in the class: loss_names = ("mean_squared_error",), or other names of '
        "keras_shared.losses.LOSSES. Or give `compile` a loss."
    )
    default_metrics: ClassVar[tuple[str, ...]] = ()
    presets: ClassVar[Any] = _Presets()

    def __init__(
        self, inputs: Any, outputs: Any, name: str | None = None, trainable: bool = True,
        frozen: Collection[int] = (), **unknown: Any,
    ) -> None:  # fmt: skip
        for argument in unknown:
            parameters = inspect.signature(type(self).__init__).parameters.values()
            named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
            known = [name for name in named if name != "self"]
            raise ValueError(
                f"{type(self).__name__} takes no argument `{argument}`. "
                f"{suggestion(argument, [*known, 'name', 'trainable'])}"
            )
        super().__init__(inputs, outputs, name=name, trainable=trainable)
        if not isinstance(frozen, (list, tuple)):
            raise ValueError(
                "`frozen` holds places of layers, as `get_config` gives them. Set layer.trainable "
                f"= False on those that are not to be trained. Received: frozen={frozen!r}"
            )
        self._freeze(frozen)  # of a subclass whose `from_config` is its own

    @classmethod
    def bright_ink(cls, **config: Any) -> bool | None:
        """Whether a model of these arguments reads bright ink on a dark ground, or the reverse.

        Returns:
            None where both are read alike, or nothing is known.
        """
        return None

    @classmethod
    def from_preset(cls, preset: str | os.PathLike[str], version: int | None = None) -> Self:
        """Load a published model of this class, to predict with or to fine-tune.

        Args:
            preset: name of a published model (`keras_shared.list_presets()`), or a path that
                `keras_shared.load` takes.
            version: number of the version; the newest by default.

        Returns:
            The trainable, uncompiled model.

        Raises:
            ValueError: if there is no such preset (the nearest names are in the message), or if
                it holds a model of another class.

        Example:
            >>> from keras_shared.zoo import LeNet5
            >>> LeNet5.from_preset("lenet5_mnist").variant
            '1998'
        """
        model = read_model(preset, version, compile=False)
        if not isinstance(model, cls):
            raise ValueError(
                f"'{os.fspath(preset)}' holds a {type(model).__name__}, not a {cls.__name__}. "
                f"Use {type(model).__name__}.from_preset, or keras_shared.load for any class."
            )
        return model

    @classmethod
    def default_loss(cls, **arguments: Any) -> str:
        """Name of the loss that a model with these constructor arguments is trained with."""
        name: str = cls.loss_names[0]
        return name

    @classmethod
    def image_shape_of(cls, **arguments: Any) -> tuple[int, int, int] | None:
        """Height, width and channels of the images that a model with these arguments takes.

        None for a model of other things, or of images of any size.
        """
        return None

    def compile(
        self, optimizer: Any = "auto", loss: Any = "auto", *, metrics: Any = "auto", **kwargs: Any
    ) -> None:
        """As `keras.Model.compile`; what is left out is what the model's task is trained with.

        Args:
            optimizer: as in Keras; "auto" is Adam with a rate of 0.001.
            loss: as in Keras; "auto" is the model's own.
            metrics: as in Keras; "auto" is the model's own where the loss is, otherwise none.
            **kwargs: further arguments of `keras.Model.compile`.

        Example:
            >>> from keras_shared.zoo import LeNet5
            >>> model = LeNet5(variant="modern", num_classes=3)
            >>> model.compile()
            >>> model.loss.name
            'sparse_categorical_crossentropy'
        """
        own = _is_auto(loss)
        if own:
            loss = LOSSES[self.default_loss(**self.get_config())]()
        if _is_auto(metrics):
            metrics = list(self.default_metrics) if own else None
        if _is_auto(optimizer):
            optimizer = keras.optimizers.Adam()
        super().compile(optimizer, loss, metrics=metrics, **kwargs)

    def set_weights(self, weights: list[Any]) -> None:
        super().set_weights(weights)
        renew_normalization(self)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras leaves this to models whose `compile` is their own
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def signatures(self) -> dict[str, Signature]:
        """The ways to ask this model once it is exported; the first is `serving_default` too."""
        raise UnfinishedError(
            f"{type(self).__name__} has no `signatures`. Write in the class: def signatures(self), "
            "which returns a dict from the name of each way to ask it to a "
            "keras_shared.signature.Signature."
        )

    def export(
        self, filepath: str | os.PathLike[str], format: str | None = None, **kwargs: Any
    ) -> None:
        """Write this model's named signatures for inference elsewhere, each weight stored once.

        Args:
            filepath: folder or file to write; replaces what was exported there before.
            format: see `keras_shared.export`, by default that of the suffix; other formats go to
                `keras.Model.export` as they are.
            **kwargs: `signature`, see `keras_shared.export`; `verbose` is taken and ignored. The
                inputs are those of `signatures()`.

        Raises:
            ValueError: for another argument; see also `keras_shared.export`.

        Example:
            >>> import tempfile
            >>> import tensorflow as tf
            >>> from keras_shared.zoo import TiedAutoencoder
            >>> folder = tempfile.mkdtemp() + "/autoencoder"
            >>> TiedAutoencoder(units=(4, 2), input_dim=6).export(folder)
            >>> sorted(tf.saved_model.load(folder).signatures)
            ['decode', 'encode', 'reconstruct', 'serving_default']
        """
        from keras_shared.exporting import export  # here, since it imports TensorFlow
        from keras_shared.exporting.formats import FORMATS

        if format not in (None, *FORMATS):
            super().export(filepath, format=format, **kwargs)
            return
        given = {key: value for key, value in kwargs.items() if value is not None}
        refused = sorted(set(given) - {"verbose", "signature"})
        if refused:
            raise ValueError(
                f"{type(self).__name__}.export writes the signatures {list(self.signatures())} "
                f"and takes no {refused} for format={format!r}."
            )
        export(self, filepath, format, given.get("signature"))

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.quantize`, for models with words too."""
        for layer in flatten_layers(self):
            if isinstance(layer, LOOKUPS) and not layer.built:
                layer.build(None)  # calls do not, and Keras quantises no model with such a layer
        super().quantize(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = {"name": self.name, "trainable": self.trainable, "dtype": self._dtype_config()}
        return config | self._frozen_config() | self._quantized_config()

    def _frozen_config(self) -> dict[str, Any]:
        """Which layers are not trained, by their places, where some are."""
        within = enumerate(flatten_layers(self))
        frozen = [place for place, layer in within if layer is not self and not layer.trainable]
        return {"frozen": frozen} if frozen and self.trainable else {}

    @staticmethod
    def _policy(dtype: Any, layer: str | None = None, otherwise: Any = None) -> Any:
        """The policy of one layer: its own in a DTypePolicyMap, else `otherwise`, else the default.

        Keras would take the map itself, but saves a quantised Dense that holds one wrongly.
        """
        if not isinstance(dtype, keras.dtype_policies.DTypePolicyMap):
            return keras.dtype_policies.get(otherwise or dtype)
        if layer in dtype:
            return dtype[layer]
        return keras.dtype_policies.get(otherwise or dtype.default_policy)

    def _dtype_config(self) -> dict[str, Any]:
        base = getattr(self, "base_policy", self.dtype_policy)
        config: dict[str, Any] = keras.dtype_policies.serialize(base)
        return config

    def _quantized_config(self) -> dict[str, Any]:
        """How layers are quantised, by their places, where some are."""
        quantized = [
            [place, mode, keras.saving.serialize_keras_object(layer.quantization_config)]
            for place, layer in enumerate(flatten_layers(self))
            if (mode := getattr(layer, "quantization_mode", None))
        ]
        # lists for tuples, as the config of a file has them
        return {"quantized": json.loads(json.dumps(quantized))} if quantized else {}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        config = dict(config)
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = keras.dtype_policies.deserialize(config["dtype"])
        frozen, quantized = config.pop("frozen", ()), config.pop("quantized", ())
        model = cls(**config)
        layers = flatten_layers(model)
        for place, mode, given in quantized:
            if layers[place].quantization_mode is None:  # else by its config
                layers[place].quantize(mode, config=keras.saving.deserialize_keras_object(given))
        model._freeze(frozen)
        return model

    def _freeze(self, places: Collection[int]) -> None:
        """Do not train the layers at these places, as `get_config` counts them."""
        for place, layer in enumerate(flatten_layers(self)):
            if place in places:
                layer.trainable = False


def _names(owner: type[Any]) -> Iterator[str]:
    """The names of a class and of all that inherit from it."""
    yield owner.__name__
    for inner in owner.__subclasses__():
        yield from _names(inner)


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"
