import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_shared.errors import attempt, whole_reason
from keras_shared.layers.hashed_dense import HashedDense
from keras_shared.layers.partly_shared import (
    NORMALIZATIONS,
    PartlyShared,
    copy_of,
    layers_named,
    own_part,
    plain_copy,
)
from keras_shared.layers.relaxed_dense import RelaxedDense
from keras_shared.layers.schedules import positive, uses_of
from keras_shared.layers.step_embedding import StepEmbedding
from keras_shared.tying import TiedReader, TieError
from keras_shared.tying.alike import differing
from keras_shared.tying.keras_private import (
    arguments_of,
    flatten_layers,
    mask_of,
    take_arguments,
)


@keras.saving.register_keras_serializable("keras_shared")
class SharedStack(keras.layers.Layer):
    """A stack of `depth` calls of a block, with the weights of `distinct` blocks.

    `x_(k+1) = block_s(k)(x_k)` for `k = 0 ... depth - 1`, where the schedule `s` says which block
    each use calls. The gradient of a shared weight is the sum over its uses. A stack of 6 uses of 2
    blocks has the parameters of 2 and the arithmetic of 6.

    What a use may have for its own: sub-layers (all that `share` does not name), normalisation, a
    step embedding `e_k`, which is added to its input, and a low-rank difference `A_k B_k` of every
    shared kernel of a Dense or EinsumDense, which then computes `x (W + A_k B_k) + b`.

    Args:
        block: a layer or model that returns what it takes: the first block. The others are built
            from its config, with weights drawn anew.
        depth: number of uses.
        distinct: number of blocks; 1 by default, or as many as a list names.
        schedule: which block each use calls: `"cycle"` (ABCABC, default), `"sequence"` (AABBCC),
            `"cycle_reverse"` (ABCCBA), `"middle_cycle"` (first and last use have blocks of their
            own), or a list with the index of the block of each use.
        share: `"all"` (default), or the names of the sub-layers that the uses of one block share,
            the rest being own to each use: `"attention"`, `["attention", "feed_forward"]`. Names
            are those of the block's attributes; in a functional model those of its layers.
        own_normalization: whether Keras' normalisation layers inside of the block are own to each
            use.
        step_embedding: whether each use adds a vector of its own to its input.
        rank: rank of the differences of each use; None for no differences.
        **kwargs: arguments of `keras.layers.Layer`.

    Call:
        As the block. What the block returns takes the place of the first argument in the next use;
        every use gets the other arguments: other tensors, `training`, states. A mask goes on as the
        block hands it on; to a block that does not (`supports_masking` is False), each use gives
        the mask of the stack.

    Input shape:
        What the block takes.

    Output shape:
        What the block returns.

    Raises:
        ValueError: for an unknown schedule or numbers that do not fit; for `share` or
            `own_normalization` that fit nothing in the block; for a stateful block of several uses;
            for a block that does not take what it returns.

    Example:
        >>> import keras
        >>> from keras_shared.layers import SharedStack
        >>> inputs = keras.Input((64,))
        >>> stack = SharedStack(keras.layers.Dense(64, "relu"), depth=6, distinct=2)
        >>> model = keras.Model(inputs, stack(inputs))
        >>> model.count_params()  # two Dense: 2 * (64 * 64 + 64)
        8320
        >>> stack.uses[0] is stack.uses[2], stack.uses[0] is stack.uses[1]
        (True, False)

    Reference:
        Dehghani et al. 2019, "Universal Transformers"; Lan et al. 2020, "ALBERT", section 3.1;
        Takase & Kiyono 2023, "Lessons on Parameter Sharing across Layers in Transformers"; Bae et
        al. 2025, "Relaxed Recursive Transformers", section 2.3 (`rank`).
    """

    def __init__(
        self,
        block: keras.Layer,
        depth: int,
        distinct: int | None = None,
        schedule: str | Sequence[int] = "cycle",
        share: str | Sequence[str] = "all",
        own_normalization: bool = False,
        step_embedding: bool = False,
        rank: int | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(block, keras.Layer):
            raise ValueError(
                "SharedStack takes a layer or a model as its block. Received: "
                f"block={block!r} (of type {type(block).__name__})"
            )
        if rank is not None:
            rank = positive("rank", rank, "a positive integer or None")
        depth = positive("depth", depth)
        for name, flag in (
            ("own_normalization", own_normalization),
            ("step_embedding", step_embedding),
        ):
            if not isinstance(flag, (bool, np.bool_)):
                raise ValueError(f"`{name}` must be True or False. Received: {name}={flag!r}")
        if not isinstance(share, str) and not (
            isinstance(share, (list, tuple)) and all(isinstance(name, str) for name in share)
        ):
            raise ValueError(
                f"`share` must be 'all', a name, or a list of names. Received: share={share!r}"
            )
        if isinstance(schedule, (list, tuple, np.ndarray)):
            schedule = [int(i) if isinstance(i, np.integer) else i for i in schedule]
        if distinct is None:
            distinct = len({*map(repr, schedule)}) if isinstance(schedule, list) else 1
        distinct = positive("distinct", distinct)
        indices = uses_of(schedule, depth, distinct)
        super().__init__(**kwargs)
        self.depth, self.distinct = depth, distinct
        self.schedule = schedule if isinstance(schedule, str) else list(schedule)
        self.share = share if isinstance(share, str) else list(share)
        self.own_normalization, self.step_embedding = own_normalization, step_embedding
        self.rank = rank
        self.supports_masking = True
        self.block = block
        self.blocks = [
            block,
            *(copy_of(block, f"{block.name}_{i}", i) for i in range(1, distinct)),
        ]
        self.indices = indices
        self.uses = [self.blocks[i] for i in indices]
        self.steps = [
            StepEmbedding(name=f"step_{k}", dtype=self.dtype_policy)
            for k in range(depth if step_embedding else 0)
        ]
        names = [name for name in arguments_of(block) if not name.startswith("*")]
        self._first = names[0] if names else "inputs"
        take_arguments(self, arguments_of(block))
        # Keras gives `build` the shape of each tensor whose name stands in its signature
        shapes = [f"{name}_shape" for name in names if name != "mask"]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, kind, default=None) for name in shapes]
        )
        self._shapes: dict[str, Any] = {}
        self._frozen: list[int] | None = None  # places of layers that are not trained, once built

    def build(self, input_shape: Any = None, **shapes: Any) -> None:
        first = f"{self._first}_shape"
        self._shapes = shapes if input_shape is None else {first: input_shape, **shapes}
        self._refuse_states()
        given = self._tensors(self._shapes)
        # a trial of `call` builds the blocks, whatever they take
        keras.Operation.compute_output_spec(self, given.pop(self._first), **given)
        if self._has_own_parts():
            self.uses = self._partly_shared_uses()
        if self._frozen is not None:
            for place, layer in enumerate(flatten_layers(self)):
                if layer is not self:
                    layer.trainable = place not in self._frozen

    def call(self, *args: Any, **kwargs: Any) -> Any:
        def call(layer: keras.Layer, *x: Any, **given: Any) -> Any:
            return layer(*x, **given)

        return self._run(self.uses, call, *args, **kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        shapes = dict(zip([f"{self._first}_shape"], args, strict=False)) | kwargs
        given = self._tensors(shapes)
        # no detour over Keras' own, which would ask this method
        outputs = keras.Operation.compute_output_spec(self, given.pop(self._first), **given)
        return keras.tree.map_structure(lambda output: output.shape, outputs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        # by a trial of `call`: the block may take and give several tensors
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        return None  # the output already carries the mask that the last block gave it

    def get_config(self) -> dict[str, Any]:
        if cut := [
            one.name for one in flatten_layers(self) if isinstance(one, TiedReader) and one.untied
        ]:
            raise TieError(
                f"SharedStack '{self.name}' builds its uses from one block, and cannot say that "
                f"'{cut[0]}' was untied. Where uses are to part, call `keras_shared.unshare` on "
                "the model as it was, and save or clone what it gives."
            )
        ranks = [
            [getattr(one, "lora_rank", None) for one in flatten_layers(block)]
            for block in self.blocks
        ]
        if any(rank != ranks[0] for rank in ranks):
            raise TieError(
                f"SharedStack '{self.name}' builds its blocks from one, and cannot say that some "
                "have LoRA and others not. Call `enable_lora` with the same rank on each of "
                "`blocks`."
            )
        within = enumerate(flatten_layers(self))
        frozen = [place for place, layer in within if layer is not self and not layer.trainable]
        frozen = frozen if self.built else self._frozen or []
        block = keras.saving.serialize_keras_object(self.block)
        block.pop("build_config", None)  # the stack builds it
        return {
            **super().get_config(),
            "block": block,
            "depth": self.depth,
            "distinct": self.distinct,
            "schedule": self.schedule if isinstance(self.schedule, str) else list(self.schedule),
            "share": self.share if isinstance(self.share, str) else list(self.share),
            "own_normalization": self.own_normalization,
            "step_embedding": self.step_embedding,
            "rank": self.rank,
        } | ({"frozen": frozen} if frozen and self.trainable else {})

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SharedStack":
        config = dict(config)
        frozen = config.pop("frozen", None)
        if isinstance(config["block"], dict):
            config["block"] = keras.saving.deserialize_keras_object(config["block"])
        stack = cls(**config)
        stack._frozen = frozen
        return stack

    def get_build_config(self) -> dict[str, Any] | None:
        return {"shapes_dict": self._shapes} if self._shapes else None

    def as_calls(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The output, with `call(layer, x, ...)` where a block is called, each with all weights."""
        uses = self.uses
        if self.rank is not None:
            uses = [plain_copy(u, self.blocks[i]) for u, i in zip(uses, self.indices, strict=True)]
        return self._run(uses, call, *args, **kwargs)

    def _tensors(self, shapes: dict[str, Any]) -> dict[str, Any]:
        """Arguments of `call` that have shapes and no values."""

        def tensor(shape: Any) -> Any:
            return keras.KerasTensor(shape, self.compute_dtype)

        return {
            name.removesuffix("_shape"): keras.tree.map_shape_structure(tensor, shape)
            for name, shape in shapes.items()
        }

    def _run(
        self, uses: list[keras.Layer], call: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        (x, *others), mask = args or (kwargs.pop(self._first),), kwargs.pop("mask", None)
        taken: dict[int, Any] = {}  # block -> the shapes on which it was called first
        for use, (layer, index) in enumerate(zip(uses, self.indices, strict=True)):
            shapes, given = _shapes(x), dict(kwargs)
            carried = any(mask_of(tensor) is not None for tensor in keras.tree.flatten(x))
            if mask is not None and (use == 0 or not (carried or layer.supports_masking)):
                given["mask"] = mask
            if self.steps:
                x = call(self.steps[use], x)
            outputs, error = attempt(functools.partial(call, layer, x, *others, **given))
            if error and shapes == taken.get(index, shapes):
                raise error
            if error:
                raise ValueError(
                    f"SharedStack '{self.name}' calls '{layer.name}' of use {use} on inputs of the "
                    f"shapes {shapes}, and called the same block before on {taken[index]}. A block "
                    f"that is called again must take what it returns: {whole_reason(error)}"
                ) from error
            taken.setdefault(index, shapes)
            if use + 1 < self.depth:
                self._check_structure(x, outputs, layer)
            x = outputs
        return x

    def _check_structure(self, inputs: Any, outputs: Any, layer: keras.Layer) -> None:
        tree = keras.tree
        alike = tree.is_nested(inputs) == tree.is_nested(outputs)
        if not alike or len(tree.flatten(inputs)) != len(tree.flatten(outputs)):
            raise ValueError(
                f"A block of SharedStack '{self.name}' must return what it takes, which the next "
                f"use takes. Received: '{layer.name}' takes the shapes {_shapes(inputs)} and "
                f"returns {_shapes(outputs)}"
            )

    def _refuse_states(self) -> None:
        keeps = [one.name for one in flatten_layers(self.block) if getattr(one, "stateful", False)]
        if keeps and self.depth > self.distinct:
            raise ValueError(
                f"SharedStack '{self.name}' calls a block several times, and its stateful layer "
                f"'{keeps[0]}' would go on in one use where another use ended. Build it with "
                "stateful=False, and pass states by `initial_state`."
            )

    def _has_own_parts(self) -> bool:
        return self.share != "all" or self.own_normalization or self.rank is not None

    def _partly_shared_uses(self) -> list[keras.Layer]:
        own = [self._own_layers(block) for block in self.blocks]
        uses: list[keras.Layer] = []
        for use, index in enumerate(self.indices):
            first = index not in self.indices[:use]
            block = self.blocks[index]
            if first and self.rank is None:
                uses.append(block)
            else:
                uses.append(PartlyShared(own[index], self.rank, use, first).of(block))
        return uses

    def _own_layers(self, block: keras.Layer) -> set[int]:
        """ids of the layers inside of a block that each use has for its own."""
        names = [self.share] if isinstance(self.share, str) else self.share
        roots = [block] if self.share == "all" else layers_named(block, names)
        shared = [layer for root in roots for layer in flatten_layers(root)]
        own = {id(layer) for layer in flatten_layers(block)} - {id(layer) for layer in shared}
        if self.own_normalization:
            inside = flatten_layers(block)
            normalizing = [layer for layer in inside if isinstance(layer, NORMALIZATIONS)]
            if not normalizing:
                raise ValueError(
                    f"'{block.name}' has no normalisation layer of Keras that a use could have for "
                    "its own. For one of another class, name in `share` all sub-layers but it. "
                    f"Received: own_normalization=True, share={self.share!r}"
                )
            own |= {id(layer) for layer in normalizing}
        dense = [layer for layer in shared if isinstance(layer, RelaxedDense.source_classes)]
        if self.rank is not None and not dense:
            raise ValueError(
                f"'{block.name}' shares no Dense and no EinsumDense, whose kernels could differ. "
                f"Received: rank={self.rank}, share={self.share!r}"
            )
        return own

    @classmethod
    def from_layers(
        cls,
        layers: Sequence[keras.Layer],
        distinct: int | None = None,
        schedule: str | Sequence[int] = "cycle",
        start: str = "mean",
        **kwargs: Any,
    ) -> "SharedStack":
        """A stack with one use in the place of each of `layers`, which shares their weights.

        What the uses of a block share starts from its layers; what a use has for its own starts
        from the layer in whose place it is.

        Args:
            layers: built layers or models of one class, shape and config, as they are called one
                after another; they stay as they are. A block is frozen where one of them is.
            distinct: number of blocks.
            schedule: see `SharedStack`.
            start: `"mean"` of the layers in whose place a block is, the `"first"` of them, or
                `"svd"`: their mean, and for the difference of each use (`rank`) the singular
                vectors of what is left.
            **kwargs: other arguments of `SharedStack`.

        Raises:
            ValueError: for layers that are not built or compute differently, for another `start`,
                or for `"svd"` without `rank`.

        Example:
            >>> import keras
            >>> from keras_shared.layers import SharedStack
            >>> layers = [keras.layers.Dense(8) for _ in range(4)]
            >>> for layer in layers:
            ...     layer.build((None, 8))
            >>> stack = SharedStack.from_layers(layers, distinct=2, start="svd", rank=8)
            >>> x = keras.random.normal((1, 8))
            >>> difference = stack(x) - keras.Sequential(layers)(x)
            >>> bool(keras.ops.max(keras.ops.abs(difference)) < 1e-4)  # of full rank: the same
            True

        Reference:
            Bae et al. 2025, "Relaxed Recursive Transformers", section 2.3.
        """
        if start not in ("mean", "first", "svd"):
            raise ValueError(f"`start` must be 'mean', 'first' or 'svd'. Received: start={start!r}")
        if start == "svd" and kwargs.get("rank") is None:
            raise ValueError(
                "start='svd' gives each use a low-rank difference, and needs its `rank`. Received: "
                f"rank={kwargs.get('rank')!r}"
            )
        layers = list(layers)
        kinds = {(type(one), *(tuple(v.shape) for v in one.variables)) for one in layers}
        for one in layers[1:]:
            if type(one) is type(layers[0]) and (differ := differing(layers[0], one)):
                raise ValueError(
                    "SharedStack.from_layers takes layers that one block can stand for. "
                    f"'{layers[0].name}' and '{one.name}' differ in {differ}: give all the same, "
                    "or leave out those that differ."
                )
        if len(kinds) != 1 or not all(one.built for one in layers):
            given = [
                (one.name, type(one).__name__, [tuple(v.shape) for v in one.variables])
                for one in layers
            ]
            raise ValueError(
                "SharedStack.from_layers takes built layers of one class with weights of the same "
                f"shapes. Received: {given}"
            )
        hashed = [part.name for part in flatten_layers(layers[0]) if isinstance(part, HashedDense)]
        if hashed and distinct not in (None, 1):
            raise ValueError(
                f"Each block of a stack has a hash of its own, and '{hashed[0]}' of all `layers` "
                f"the same: expected distinct=1. Received: distinct={distinct}"
            )
        block = copy_of(layers[0], layers[0].name, 0)
        stack = cls(block, len(layers), distinct, schedule, **kwargs)
        stack.build_from_config(_build_config(layers[0]))
        stack._start_from(layers, start)
        return stack

    def _start_from(self, layers: list[keras.Layer], start: str) -> None:
        values: dict[int, tuple[keras.Variable, list[np.ndarray]]] = {}
        relaxed: list[tuple[RelaxedDense, keras.Layer]] = []
        for layer in flatten_layers(self):
            layer.trainable = True
        for mine, theirs in zip(self.uses, layers, strict=True):
            for layer, model in zip(flatten_layers(mine), flatten_layers(theirs), strict=True):
                owner = layer
                if isinstance(layer, RelaxedDense):
                    relaxed.append((layer, model))
                    owner = layer.source()
                if not model.trainable:
                    layer.trainable = owner.trainable = False
                for variable, value in zip(own_part(owner), own_part(model), strict=True):
                    _, found = values.setdefault(id(variable), (variable, []))
                    found.append(ops.convert_to_numpy(value))
        for variable, found in values.values():
            whole = start == "first" or not keras.backend.is_float_dtype(variable.dtype)
            variable.assign(found[0] if whole else np.mean(found, axis=0))
        for layer, model in relaxed if start == "svd" else []:
            base = ops.convert_to_numpy(layer.source().kernel)
            layer.set_difference(ops.convert_to_numpy(model.kernel) - base)


def _shapes(tensors: Any) -> Any:
    return keras.tree.map_structure(lambda x: tuple(x.shape) if hasattr(x, "shape") else x, tensors)


def _build_config(layer: keras.Layer) -> dict[str, Any]:
    if getattr(layer, "inputs", None):
        given = layer.inputs[0] if isinstance(layer, keras.Sequential) else layer.input
        shape = keras.tree.map_structure(lambda tensor: tensor.shape, given)
        return {"input_shape": shape}
    config: dict[str, Any] = layer.get_build_config() or {}
    return config
