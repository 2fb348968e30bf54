import os
from typing import Any, Self

import keras

import keras_shared.layers as _layers  # noqa: F401  (a saved tower may hold any of them)
import keras_shared.losses as _losses  # noqa: F401
from keras_shared.signature import Signature


class ZooModel(keras.Model):
    """What the zoo's models have in common: a preset, named signatures, an export that keeps ties.

    Each is an ordinary functional Keras model whose constructor arguments are its whole
    configuration, so that it is rebuilt, ties and all, from them.
    """

    @classmethod
    def from_preset(cls, preset: str | os.PathLike[str], version: int | None = None) -> Self:
        """Load a published model of this class, to predict with or to fine-tune.

        Args:
            preset: name of a published model (`keras-shared list`), or a path that
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
        from keras_shared.presets.loading import load  # here, since loading imports the zoo

        model = load(preset, version=version)
        if not isinstance(model, cls):
            raise ValueError(
                f"'{os.fspath(preset)}' holds a {type(model).__name__}, not a {cls.__name__}. "
                f"Use {type(model).__name__}.from_preset, or keras_shared.load for any class."
            )
        return model

    def signatures(self) -> dict[str, Signature]:
        """The ways to ask this model once it is exported; the first is `serving_default` too."""
        raise NotImplementedError

    def export(
        self, filepath: str | os.PathLike[str], format: str = "tf_saved_model", **kwargs: Any
    ) -> None:
        """Write this model's named signatures for inference elsewhere, each weight stored once.

        Args:
            filepath: folder or file to write; replaces what was exported there before.
            format: see `keras_shared.export`; other formats go to `keras.Model.export` as they
                are.
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
        from keras_shared.exporting import FORMATS, export  # here, since it imports TensorFlow

        if format not in FORMATS:
            return super().export(filepath, format=format, **kwargs)
        given = {key: value for key, value in kwargs.items() if value is not None}
        refused = sorted(set(given) - {"verbose", "signature"})
        if refused:
            raise ValueError(
                f"{type(self).__name__}.export writes the signatures {list(self.signatures())} "
                f"and takes no {refused} for format={format!r}."
            )
        export(self, filepath, format, given.get("signature"))
        return None

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "trainable": self.trainable, "dtype": self._dtype_config()}

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
        """The policy, with an exception for each layer that has another (a quantised one)."""
        policies = keras.dtype_policies.DTypePolicyMap(self.base_policy)
        for layer in self.layers:
            for inner in [layer, *getattr(layer, "layers", [])]:
                if inner.dtype_policy.quantization_mode is not None:
                    policies[inner.path] = inner.dtype_policy
        return keras.dtype_policies.serialize(policies if len(policies) else self.base_policy)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        config = dict(config)
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = keras.dtype_policies.deserialize(config["dtype"])
        return cls(**config)
