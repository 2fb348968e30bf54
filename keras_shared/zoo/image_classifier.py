from typing import Any, ClassVar

import keras
import numpy as np

from keras_shared.signature import Signature
from keras_shared.zoo.checked_images import checked_images
from keras_shared.zoo.zoo_model import ToWrite, ZooModel


class ImageClassifier(ZooModel):
    """A zoo model that says which of several classes an image shows: the largest score wins.

    A subclass sets `class_names`, one for each output.

    Attributes:
        bright_on_dark: whether it expects bright ink on a dark ground.
    """

    bright_on_dark: ClassVar[bool] = False

    task = "classification"
    loss_names: ClassVar[tuple[str, ...]] = ("sparse_categorical_crossentropy",)
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    class_names: Any = ToWrite(
        'in its constructor: self.class_names = ("a", "b"), a name for each output.'
    )

    def classify(self, images: Any) -> list[str]:
        """The class of each image, by name.

        Args:
            images: (batch, height, width, channels), 0 to 255.

        Raises:
            ValueError: for arrays that are no such images.
        """
        scores = super().predict(self._checked(images), verbose=0)
        return [self.class_names[i] for i in scores.argmax(axis=-1)]

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`; an array that is no batch of images is refused by its shape."""
        return super().predict(
            self._checked(x) if isinstance(x, np.ndarray) else x, *args, **kwargs
        )

    def _checked(self, images: Any) -> np.ndarray:
        return checked_images(images, "images", self.input_shape[1:])

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
