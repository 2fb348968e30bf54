from typing import Any, ClassVar

import keras

from keras_shared.signature import Signature
from keras_shared.zoo.zoo_model import ZooModel


class ImageClassifier(ZooModel):
    """A zoo model that says which of several classes an image shows: the largest score wins.

    A subclass sets `class_names`, one for each output.
    """

    task = "classification"
    loss_names: ClassVar[tuple[str, ...]] = ("sparse_categorical_crossentropy",)
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    class_names: tuple[str, ...]

    def signatures(self) -> dict[str, Signature]:
        image: Any = keras.KerasTensor(self.input_shape)
        return {
            "classify": Signature(
                lambda image: {"scores": self(image, training=False)},
                {"image": image},
                image_size=tuple(self.input_shape[1:3]),
                class_names=self.class_names,
            )
        }
