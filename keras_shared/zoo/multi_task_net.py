from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import keras
import numpy as np
from keras import layers, ops
from pydantic import PositiveInt

from keras_shared import initializers
from keras_shared.layers.schedules import positive
from keras_shared.signature import Signature
from keras_shared.tying import TieError
from keras_shared.tying.keras_private import flatten_layers
from keras_shared.zoo.checked_images import checked_images
from keras_shared.zoo.class_names import DIGITS, checked_class_names
from keras_shared.zoo.whole_numbers import IMAGE, whole_numbers
from keras_shared.zoo.zoo_model import ZooModel


@keras.saving.register_keras_serializable("keras_shared")
class MultiTaskNet(ZooModel):
    """One trunk, shared by all tasks, and a head for each: what one task learns, the others use.

    `y_t = head_t(trunk(x))`. The trunk is called once, whatever the number of heads, and its
    gradient is the sum over the tasks. With fixed weights the loss is `sum_t w_t L_t`. Weighted by
    uncertainty it is `sum_t exp(-s_t) L_t + s_t / 2` with one trained number `s_t` for each task,
    the logarithm of a variance: a task with a large loss counts less, and at the best `s_t` each
    term `exp(-s_t) L_t` is 1/2, whatever the units of its loss.

    With `shared=False` each task has a trunk of its own, drawn anew: as many single nets, trained
    together. The default trunk reads an image as LeNet does: two convolutions of 5 x 5 with `width`
    and twice as many maps, each with ReLU and max pooling, and `5 width` units; a default head is
    as many units and its logits. Two tasks of ten classes and images of 36x36 pixels take 47,450
    parameters, and 88,780 with two trunks.

    For a new task on a trunk that stays as it is, set `net.trunk.trainable = False` and build a
    second net of the same trunk and another head: there is still one trunk.

    Args:
        trunk: a functional model or built Sequential with one output, which all heads take; None
            for the default.
        heads: name of a task -> the layer or model that answers it, new or built, which may be that
            of another task too; None for default heads by `class_names`.
        weighting: `"fixed"`: by `loss_weights` of `compile`, 1 by default; or `"uncertainty"`.
        class_names: name of a task -> names of its classes, in the order of its head's outputs, for
            the tasks that name classes. None, without `heads`, for a left and a right digit.
        width: of the default trunk and heads.
        shared: whether there is one trunk.
        image_shape: (height, width, channels) that the default trunk reads.
        kernel_initializer: initial kernels of the default trunk and heads, as of
            `keras_shared.initializers.get`; None for "he_normal".
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        What `trunk` takes; of the default one, images (batch, height, width, channels) with values
        0 to 255.

    Returns:
        A dict: name of a task -> what its head gives, logits of the default heads. `compile` and
        `fit` take losses, metrics and targets by these names: `loss={"left": "mse", ...}`; one loss
        or metric, by its name alone, is each task's.

    Raises:
        ValueError: for a trunk without a graph or with several outputs, for no heads, classes of
            tasks that no head has, or more or fewer than its outputs, another weighting, or a task,
            weighted by uncertainty, without a loss, or with a weight in `loss_weights`.

    Example:
        >>> import keras
        >>> from keras_shared.zoo import MultiTaskNet
        >>> trunk = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "relu")])
        >>> heads = {"kind": keras.layers.Dense(3), "size": keras.layers.Dense(1)}
        >>> net = MultiTaskNet(trunk, heads)
        >>> {name: y.shape for name, y in net(keras.ops.ones((2, 6))).items()}
        {'kind': TensorShape([2, 3]), 'size': TensorShape([2, 1])}
        >>> trunk.trainable = False
        >>> other = MultiTaskNet(trunk, {"colour": keras.layers.Dense(2)})
        >>> len(other.trainable_variables)  # of the new head alone
        2

    Reference:
        Caruana 1997, "Multitask Learning"; Kendall, Gal, Cipolla 2018, "Multi-Task Learning Using
        Uncertainty to Weigh Losses for Scene Geometry and Semantics", section 3.2 (its factor 1/2
        before losses of regression only moves `s_t`); the default net: Sener & Koltun 2018,
        "Multi-Task Learning as Multi-Objective Optimization", section 5.1 and its published code,
        without the dropout there.
    """

    task = "multitask_classification"
    loss_names: ClassVar[tuple[str, ...]] = ("sparse_categorical_crossentropy",)
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    description = "Answers several questions about an image at once, from one shared trunk."
    limits = "It knows its tasks and their classes alone, in images as it was trained on."

    def __init__(
        self,
        trunk: keras.Model | None = None,
        heads: Mapping[str, keras.Layer] | None = None,
        weighting: Literal["fixed", "uncertainty"] = "fixed",
        class_names: Mapping[str, Sequence[str]] | None = None,
        width: PositiveInt = 10,
        shared: bool = True,
        image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (36, 36, 1),
        kernel_initializer: initializers.InitializerName | keras.initializers.Initializer | None = (
            None
        ),
        **kwargs: Any,
    ) -> None:
        if heads is None and class_names is None:
            class_names = {"left": DIGITS, "right": DIGITS}
        for argument, given in {"heads": heads, "class_names": class_names}.items():
            if given is not None and not (
                isinstance(given, Mapping) and all(isinstance(task, str) for task in given)
            ):
                raise ValueError(
                    f"`{argument}` must be a dict by the names of the tasks. Received: "
                    f"{argument}={given!r}"
                )
        names = {
            task: checked_class_names(() if own is None else own, f"class_names['{task}']")
            for task, own in (class_names or {}).items()
        }
        if not isinstance(shared, bool):
            raise ValueError(f"`shared` must be True or False. Received: shared={shared!r}")
        width = positive("width", width)
        if trunk is None:
            trunk = _default_trunk(image_shape, width, kernel_initializer)
        if heads is None:
            heads = {task: _default_head(len(own), width, kernel_initializer)
                     for task, own in names.items()}  # fmt: skip
        if len(getattr(trunk, "outputs", None) or ()) != 1:
            raise ValueError(
                "`trunk` must be a functional model or built Sequential with one output. "
                f"Received: trunk={trunk!r}"
            )
        if not heads or not all(isinstance(head, keras.Layer) for head in heads.values()):
            raise ValueError(
                f"`heads` must give a layer for each task, by name. Received: heads={heads!r}"
            )
        if unknown := sorted(set(names) - set(heads)):
            raise ValueError(
                f"`class_names` must name classes of tasks in `heads`, {[*heads]}. "
                f"Received: {unknown}"
            )
        if weighting not in ("fixed", "uncertainty"):
            raise ValueError(
                f"`weighting` must be 'fixed' or 'uncertainty'. Received: weighting={weighting!r}"
            )

        # === Graph ===
        inputs = keras.tree.map_structure(
            lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name),
            trunk.inputs[0] if isinstance(trunk, keras.Sequential) else trunk.input,
        )
        trunks = {task: trunk if shared or not number else _again(trunk, task)
                  for number, task in enumerate(heads)}  # fmt: skip
        read = {id(one): one(inputs) for one in trunks.values()}
        answers = {task: head(read[id(trunks[task])]) for task, head in heads.items()}
        for task, own in names.items():
            if answers[task].shape[-1] != len(own):
                raise ValueError(
                    f"`class_names` of '{task}' must name each output of its head, which gives "
                    f"{answers[task].shape}. Received: {len(own)} names"
                )
        super().__init__(inputs, answers, **kwargs)

        # === Config ===
        self.trunk = trunk
        self.heads = dict(heads)
        self.weighting = weighting
        self.class_names = names or None
        self.width = width
        self.shared = shared
        self.image_shape = tuple(image_shape)
        self.kernel_initializer = kernel_initializer
        self.log_variances = None
        if weighting == "uncertainty":
            self.log_variances = self.add_weight(
                name="log_variances", shape=(len(heads),), initializer="zeros", dtype="float32"
            )

    @classmethod
    def image_shape_of(
        cls, image_shape: Any = (36, 36, 1), **arguments: Any
    ) -> tuple[int, int, int]:
        height, width, channels = image_shape
        return (height, width, channels)

    def compile(
        self, optimizer: Any = "auto", loss: Any = "auto", *, metrics: Any = "auto", **kwargs: Any
    ) -> None:
        if isinstance(loss, str) and loss == "auto":
            if set(self.class_names or ()) != set(self.heads):
                raise ValueError(
                    "Only a net that names the classes of all of its tasks has a loss of its own. "
                    f"Received: class_names={self.class_names} of the tasks {[*self.heads]}. Give "
                    "`loss` and `metrics` by the names of the tasks."
                )
            metrics = list(self.default_metrics) if metrics == "auto" else metrics
        if isinstance(metrics, str) and metrics != "auto":
            metrics = [metrics]
        if isinstance(metrics, list) and len(metrics) == 1 and isinstance(metrics[0], str):
            metrics = dict.fromkeys(self.heads, metrics[0])  # Keras wants one for each output
        if self.weighting == "uncertainty" and kwargs.get("loss_weights") is not None:
            raise ValueError(
                "A net that is weighted by uncertainty learns the weights of its losses. Received: "
                f"loss_weights={kwargs['loss_weights']}. Leave them out, or use weighting='fixed'."
            )
        super().compile(optimizer, loss, metrics=metrics, **kwargs)

    def classify(self, images: Any) -> dict[str, list[str]]:
        """The class of each input in each task that names its classes.

        Args:
            images: what the net takes.

        Raises:
            ValueError: for arrays that are no such images, of a net that takes images.

        Example:
            >>> import numpy as np
            >>> from keras_shared.zoo import MultiTaskNet
            >>> sorted(MultiTaskNet().classify(np.zeros((3, 36, 36, 1))))
            ['left', 'right']
        """
        scores = super().predict(self._checked(images), verbose=0)
        return {
            task: [names[i] for i in scores[task].argmax(axis=-1)]
            for task, names in (self.class_names or {}).items()
        }

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`; an array that is no batch of images is refused by its shape."""
        return super().predict(
            self._checked(x) if isinstance(x, np.ndarray) else x, *args, **kwargs
        )

    def _checked(self, images: Any) -> Any:
        """A batch for a trunk that takes pixels; of another the inputs as they are."""
        first = next(
            (la for la in self.trunk.layers if not isinstance(la, keras.layers.InputLayer)), None
        )
        pixels = isinstance(first, keras.layers.Rescaling) and first.scale == 1 / 255
        return checked_images(images, "images", self.input_shape[1:]) if pixels else images

    def signatures(self) -> dict[str, Signature]:
        named = self.class_names or {}
        given = keras.tree.flatten(self.input)
        inputs = {tensor.name: keras.KerasTensor(tensor.shape, tensor.dtype) for tensor in given}
        shape = given[0].shape
        image = len(given) == 1 and len(shape) == 4 and shape[-1] in (1, 3)

        def answer(**tensors: Any) -> dict[str, Any]:
            flat = [tensors[name] for name in inputs]
            found = self(keras.tree.pack_sequence_as(self.input, flat), training=False)
            return {f"{task}_scores" if task in named else task: y for task, y in found.items()}

        return {
            "classify" if named else "answer": Signature(
                answer, inputs, tuple(shape[1:3]) if image else None, self.class_names
            )
        }

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # fmt: skip
        if self.log_variances is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        if not isinstance(y, dict) or set(y) != set(self.heads):
            given = [*y] if isinstance(y, dict) else f"y of type {type(y).__name__}"
            raise ValueError(
                f"Give the targets by the names of the tasks, {[*self.heads]}. Received: {given}"
            )
        # what Keras makes of a loss of 1: less where several devices share out a batch and add up
        part = keras.losses.MeanAbsoluteError()(ops.zeros((1, 1)), ops.ones((1, 1)))
        total = part * sum(self.losses, start=ops.cast(0.0, "float32"))
        for number, (name, loss) in enumerate(self._loss_of_each()):
            weight = sample_weight[name] if isinstance(sample_weight, dict) else sample_weight
            value = loss(y[name], y_pred[name], sample_weight=weight)
            s = self.log_variances[number]
            total += ops.exp(-s) * ops.cast(value, "float32") + part * s / 2
        return total

    def _loss_of_each(self) -> list[tuple[str, keras.losses.Loss]]:
        given = self.loss if isinstance(self.loss, dict) else dict.fromkeys(self.heads, self.loss)
        if isinstance(self.loss, list | tuple) or set(given) - set(self.heads):
            raise ValueError(
                f"Give the losses by the names of the tasks, {[*self.heads]}. Received: "
                f"loss={self.loss!r}"
            )
        missing = [name for name in self.heads if given.get(name) is None]
        if missing:
            raise ValueError(
                "A net that is weighted by uncertainty needs a loss for each task. Received: "
                f"loss={self.loss!r}, none for {missing}"
            )
        return [(name, _as_loss(given[name])) for name in self.heads]

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        _refuse_layer_in_two([self.trunk, *self.heads.values()])
        first: dict[int, str] = {}  # of each head, the task that it is stored for
        heads = {name: head if first.setdefault(id(head), name) == name else first[id(head)]
                 for name, head in self.heads.items()}  # fmt: skip
        return {
            "name": self.name,
            "trainable": self.trainable,
            **self._frozen_config(),
            "trunk": serialize(self.trunk),
            "heads": {
                name: head if isinstance(head, str) else serialize(head)
                for name, head in heads.items()
            },
            "weighting": self.weighting,
            "class_names": self.class_names,
            "width": self.width,
            "shared": self.shared,
            "image_shape": self.image_shape,
            "kernel_initializer": initializers.as_config(self.kernel_initializer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        def revived(given: Any) -> Any:
            return keras.saving.deserialize_keras_object(given, custom_objects)

        heads: dict[str, keras.Layer] = {}
        for name, head in config["heads"].items():
            heads[name] = heads[head] if isinstance(head, str) else revived(head)
        whole = {**config, "trunk": revived(config["trunk"]), "heads": heads}
        return super().from_config(whole, custom_objects)


def _default_trunk(image_shape: Any, width: int, kernels: Any) -> keras.Model:
    def drawn() -> Any:
        return initializers.get(kernels or "he_normal")

    image = keras.Input(whole_numbers(image_shape, "image_shape", IMAGE), name="image")
    x = layers.Rescaling(1 / 255, name="rescale")(image)
    for number, maps in enumerate((width, 2 * width), 1):
        x = layers.Conv2D(maps, 5, kernel_initializer=drawn(), name=f"convolution_{number}")(x)
        x = layers.MaxPooling2D(name=f"pool_{number}")(x)  # 36 pixels: 16, then 6
        x = layers.ReLU(name=f"relu_{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(5 * width, "relu", kernel_initializer=drawn(), name="features")(x)
    return keras.Model(image, x, name="trunk")


def _default_head(classes: int, width: int, kernels: Any) -> keras.Model:
    def drawn() -> Any:
        return initializers.get(kernels or "he_normal")

    return keras.Sequential([
        keras.Input((5 * width,)),
        layers.Dense(5 * width, "relu", kernel_initializer=drawn(), name="hidden"),
        layers.Dense(classes, kernel_initializer=drawn(), dtype="float32", name="logits"),
    ])  # fmt: skip


def _refuse_layer_in_two(parts: list[keras.Layer]) -> None:
    """Each part is stored by itself: a layer in two of them would come back as two layers."""
    seen: dict[int, keras.Layer] = {}
    for part in {id(part): part for part in parts}.values():
        for layer in flatten_layers(part):
            other = seen.setdefault(id(layer), part)
            if other is not part and layer.weights:
                raise TieError(
                    f"Layer '{layer.name}' lies in '{other.name}' and in '{part.name}': each is "
                    "stored by itself, and it would come back as two. Put it into the trunk alone, "
                    "or let a tied layer of keras_shared.layers read it."
                )


def _again(trunk: keras.Model, task: str) -> keras.Model:
    """A trunk of the same architecture, drawn anew, and so trained also where the first is not."""
    drawn = type(trunk).from_config({**trunk.get_config(), "name": f"{trunk.name}_{task}"})
    for layer in flatten_layers(drawn):
        layer.trainable = True
    return drawn


class _OfFunction(keras.losses.Loss):
    """The mean of what a function of labels and predictions gives."""

    def __init__(self, function: Any) -> None:
        super().__init__(name="loss_of_task")
        self._function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._function(y_true, y_pred)


def _as_loss(given: Any) -> keras.losses.Loss:
    found = keras.losses.get(given)
    return found if isinstance(found, keras.losses.Loss) else _OfFunction(found)
