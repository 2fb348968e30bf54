from collections.abc import Mapping
from typing import Any, Literal, Self

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_shared")
class MultiTaskNet(keras.Model):
    """One trunk, shared by all tasks, and a head for each: what one task learns, the others use.

    `y_t = head_t(trunk(x))`. The trunk is called once, whatever the number of heads, and its
    gradient is the sum over the tasks. With fixed weights the loss is `sum_t w_t L_t`. Weighted by
    uncertainty it is `sum_t exp(-s_t) L_t + s_t / 2` with one trained number `s_t` for each task,
    the logarithm of a variance: a task with a large loss counts less, and at the best `s_t` each
    term `exp(-s_t) L_t` is 1/2, whatever the units of its loss.

    For a new task on a trunk that stays as it is, set `net.trunk.trainable = False` and build a
    second net of the same trunk and another head: there is still one trunk.

    Args:
        trunk: a functional model or built Sequential with one output, which all heads take.
        heads: name of a task -> the layer or model that answers it, new or built.
        weighting: `"fixed"`: by `loss_weights` of `compile`, 1 by default; or `"uncertainty"`.
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        What `trunk` takes.

    Returns:
        A dict: name of a task -> what its head gives. `compile` and `fit` take losses, metrics and
        targets by these names: `loss={"left": "mse", ...}`.

    Raises:
        ValueError: for a trunk without a graph or with several outputs, for no heads, another
            weighting, or a task, weighted by uncertainty, without a loss.

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
        before losses of regression only moves `s_t`).
    """

    def __init__(
        self,
        trunk: keras.Model,
        heads: Mapping[str, keras.Layer],
        weighting: Literal["fixed", "uncertainty"] = "fixed",
        **kwargs: Any,
    ) -> None:
        if len(getattr(trunk, "outputs", None) or ()) != 1:
            raise ValueError(
                "`trunk` must be a functional model or built Sequential with one output. "
                f"Received: trunk={trunk!r}"
            )
        if not heads or not all(isinstance(head, keras.Layer) for head in heads.values()):
            raise ValueError(
                f"`heads` must give a layer for each task, by name. Received: heads={heads!r}"
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
        shared = trunk(inputs)
        super().__init__(inputs, {name: head(shared) for name, head in heads.items()}, **kwargs)

        # === Config ===
        self.trunk = trunk
        self.heads = dict(heads)
        self.weighting = weighting
        self.log_variances = None
        if weighting == "uncertainty":
            self.log_variances = self.add_weight(
                name="log_variances", shape=(len(heads),), initializer="zeros", dtype="float32"
            )

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # fmt: skip
        if self.log_variances is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        if not isinstance(y, dict):
            raise ValueError(
                f"Give the targets by the names of the tasks, {[*self.heads]}. Received: y of type "
                f"{type(y).__name__}"
            )
        total = sum(self.losses, start=ops.cast(0.0, "float32"))
        for number, (name, loss) in enumerate(self._loss_of_each()):
            weight = sample_weight[name] if isinstance(sample_weight, dict) else sample_weight
            value = loss(y[name], y_pred[name], sample_weight=weight)
            s = self.log_variances[number]
            total += ops.exp(-s) * ops.cast(value, "float32") + s / 2
        return total

    def _loss_of_each(self) -> list[tuple[str, keras.losses.Loss]]:
        given = self.loss if isinstance(self.loss, dict) else dict.fromkeys(self.heads, self.loss)
        missing = [name for name in self.heads if given.get(name) is None]
        if missing:
            raise ValueError(
                "A net that is weighted by uncertainty needs a loss for each task. Received: "
                f"loss={self.loss!r}, none for {missing}"
            )
        return [(name, _as_loss(given[name])) for name in self.heads]

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "trunk": serialize(self.trunk),
            "heads": {name: serialize(head) for name, head in self.heads.items()},
            "weighting": self.weighting,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        def revived(given: Any) -> Any:
            return keras.saving.deserialize_keras_object(given, custom_objects)

        heads = {name: revived(head) for name, head in config["heads"].items()}
        return cls(**{**config, "trunk": revived(config["trunk"]), "heads": heads})


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
