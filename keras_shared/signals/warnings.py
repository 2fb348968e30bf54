"""What keeps a model from learning, in sentences with a remedy."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np

from keras_shared.signals.collecting import Use
from keras_shared.signals.ties import Tie, weight_gradient

if TYPE_CHECKING:
    from keras_shared.signals.report import LayerSignals

SATURATED = 0.3  # share of the values; a unit normal before tanh has 3 %
DEAD = 0.3  # share of the units; ReLU with symmetric weights and some hundreds of examples has 0
RATIO = 1e3  # between the first and the last layer
OPPOSED = -0.5  # cosine
ALONE = 1e3  # times the gradient of the other uses
SHOWN = 5  # names of layers in a sentence


class Weighed(NamedTuple):
    """A use with the length of the gradient that arrives there."""

    use: Use
    norm: float | None

    @property
    def kernel(self) -> bool:
        """Whether its layer multiplies by a matrix of its own."""
        kernel = getattr(self.use.layer, "kernel", None)
        return kernel is not None and len(kernel.shape) > 1


def warnings_of(
    layers: "Sequence[LayerSignals]", ties: Sequence[Tie], weighed: Sequence[Weighed]
) -> list[str]:
    """The warnings of a report: what, where, and what to do."""
    broken = next((one for one in layers if not np.isfinite(one.mean + one.deviation)), None)
    if broken is not None:
        return [
            f"not finite: '{broken.name}' gives NaN or infinity. Its weights are too large, or "
            "NaN: draw them anew, as with keras_shared.initializers.LSUV(model, batch)."
        ]
    uses = [(layer, one) for layer, one in zip(layers, weighed, strict=True)]
    shared = " A shared kernel is scaled once for all its uses." if ties else ""
    return [
        *_saturated_and_dead(layers, shared),
        *_identical(uses),
        *_vanishing([layer for layer, one in uses if one.kernel], shared),
        *_opposed(ties),
    ]


def _saturated_and_dead(layers: "Sequence[LayerSignals]", shared: str) -> Iterator[str]:
    full = [one for one in layers if (one.saturated or 0) > SATURATED]
    if full:
        most = max(full, key=lambda one: one.saturated or 0)
        yield (
            f"saturated: {_listed(full)} {_are(full)} where the activation is flat, "
            f"'{most.name}' with {most.saturated:.0%} of its values: hardly any gradient passes. "
            "Make kernels or inputs smaller: inputs of deviation 1 and "
            f"'glorot_uniform', or keras_shared.initializers.LSUV(model, batch).{shared}"
        )
    none = [one for one in layers if (one.dead or 0) > DEAD]
    if none:
        most = max(none, key=lambda one: one.dead or 0)
        yield (
            f"dead: {_listed(none)} {'has' if len(none) == 1 else 'have'} units that give the same "
            f"for every example, '{most.name}' {most.dead:.0%} of them: no gradient passes, and "
            "they stay so. Start biases at 0 and kernels by "
            f"keras_shared.initializers.LSUV(model, batch), or use a leaky ReLU.{shared}"
        )


def _identical(uses: "Sequence[tuple[LayerSignals, Weighed]]") -> Iterator[str]:
    """Units with the same weights and the same gradient stay the same for ever."""
    alike = []
    for layer, one in uses:
        kernel = getattr(one.use.layer, "kernel", None)
        if not one.kernel or one.use.number > 1 or kernel is None or kernel.shape[-1] < 2:
            continue
        if not keras.backend.is_float_dtype(kernel.dtype):
            continue
        values = np.asarray(kernel.numpy()).reshape(-1, kernel.shape[-1])
        if len(np.unique(values, axis=1).T) > values.shape[1] / 2:
            continue
        gradient = weight_gradient(one.use, kernel).reshape(values.shape)
        both = np.concatenate([values, gradient.round(_digits(gradient))])
        if len(np.unique(both, axis=1).T) <= values.shape[1] / 2:
            alike.append(layer)
    if alike:
        yield (
            f"identical units: in {_listed(alike)} units have the same weights and the same "
            "gradient, so that training cannot tell them apart. Draw kernels at random "
            "('glorot_uniform'), not from a constant."
        )


def _digits(values: np.ndarray) -> int:
    largest = float(np.abs(values).max())
    return 6 - int(np.floor(np.log10(largest))) if largest > 0 else 0


def _vanishing(layers: "Sequence[LayerSignals]", shared: str) -> Iterator[str]:
    if len(layers) < 2:
        return
    first, last = layers[0], layers[-1]
    remedy = (
        "Use 'he_normal' for ReLU and 'glorot_uniform' for tanh, or "
        f"keras_shared.initializers.LSUV(model, batch).{shared}"
    )
    if first.deviation > RATIO * last.deviation or last.deviation == 0:
        yield (
            f"vanishing: what '{last.name}' gives has deviation {last.deviation:.1e}, and "
            f"'{first.name}' {first.deviation:.1e}. {remedy}"
        )
    elif last.deviation > RATIO * first.deviation:
        yield (
            f"exploding: what '{last.name}' gives has deviation {last.deviation:.1e}, and "
            f"'{first.name}' {first.deviation:.1e}. {remedy}"
        )
    early, late = first.gradient_norm, last.gradient_norm
    if early is None or late is None:
        return
    if early * RATIO < late or early == 0:
        yield (
            f"vanishing gradient: at '{first.name}' its length is {early:.1e}, at '{last.name}' "
            f"{late:.1e}: by plain gradient steps the first layers hardly learn. {remedy}"
        )
    elif early > RATIO * late:
        yield (
            f"exploding gradient: at '{first.name}' its length is {early:.1e}, at '{last.name}' "
            f"{late:.1e}: a step that suits one is too large for the other. {remedy}"
        )


def _opposed(ties: Sequence[Tie]) -> Iterator[str]:
    for tie in ties:
        if len(tie.shape) < 2:  # biases follow the loss alone
            continue
        if tie.cosine is not None and tie.cosine < OPPOSED:
            yield (
                f"opposed uses: those of '{tie.weight}' pull it in opposite directions (cosine "
                f"{tie.cosine:.2f}); together the gradient is {tie.norm:.1e} long, by themselves "
                f"{max(tie.norms):.1e}. `keras_shared.untie`, or weights of their own, if that "
                "stays so in training."
            )
        elif min(tie.norms) > 0 and max(tie.norms) > ALONE * min(tie.norms):
            most, least = (tie.uses[tie.norms.index(f(tie.norms))] for f in (max, min))
            yield (
                f"one use alone: the gradient of '{tie.weight}' comes from '{most}' "
                f"({max(tie.norms):.1e}), hardly from '{least}' ({min(tie.norms):.1e}): the tie "
                "fits the weight to that use. Scale what that use gives, or weigh its loss."
            )


def _listed(layers: "Sequence[LayerSignals]") -> str:
    names = ", ".join(f"'{one.name}'" for one in layers[:SHOWN])
    return names if len(layers) <= SHOWN else f"{names} and {len(layers) - SHOWN} more"


def _are(layers: "Sequence[LayerSignals]") -> str:
    return "is" if len(layers) == 1 else "are"
