import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import keras
import numpy as np
from keras import layers, ops
from pydantic import PositiveInt

from keras_shared import initializers
from keras_shared.layers import CenterInk, Shared
from keras_shared.losses import LOSSES, ContrastiveLoss, EmbeddingLoss, MeanLoss
from keras_shared.losses.contrastive_loss import contrastive_loss
from keras_shared.signature import Signature
from keras_shared.zoo.calibration import calibrate, line, threshold
from keras_shared.zoo.checked_images import checked_images
from keras_shared.zoo.whole_numbers import IMAGE, whole_numbers
from keras_shared.zoo.zoo_model import ZooModel

TOWER_SIZE = (28, 28)  # pixels, as in Vinyals et al. 2016
FILTERS = (48, 48, 48, 64, 64)  # of the default tower's convolutions
BATCH = 32  # images at once, as of `keras.Model.predict`
OUTPUTS = ("distance", "probability")
POOLED = (1, 3, 5)  # after these: 28 -> 14 -> 7 -> 3 pixels


@keras.saving.register_keras_serializable("keras_shared")
class SiameseNet(ZooModel):
    """Do two images show the same thing? One tower, shared by both, and the distance between.

    `e = tower(x) / |tower(x)|` for each image, `d = |e_a - e_b|` between 0 and 2, and
    `p = sigmoid(w d + v)`, the probability of "same". The tower's weights exist once; its
    gradient is the sum over both images. `w` and `v` are trained along with a cross-entropy
    loss, or fitted afterwards by `calibrate`.

    The default tower has five blocks of Conv2D, group normalisation and ReLU, the last one without
    ReLU, three of them with pooling: 106,960 parameters, embeddings of 3 x 3 x 64 numbers. It
    normalises each image by itself, so that training and use agree and the number of images in a
    call changes nothing.

    Args:
        tower: any Keras model or layer from images to vectors or maps (which are flattened), a
            pretrained one too; set `tower.trainable = False` before `compile` to freeze it, its
            BatchNormalization included. None for the default.
        image_shape: (height, width, channels) of one input image; height and width may be None.
            Images are resized to what the tower takes; 3 channels become 1 by their mean, 1
            becomes 3 by repetition, where the tower asks for it.
        pixel_range: what the pixel values 0 and 255 become for the tower. Of
            `keras.applications`: `(-1, 1)` for MobileNet, MobileNetV2, Inception, Xception and
            NASNet, `(0, 255)` for towers with their own preprocessing (EfficientNet, MobileNetV3,
            ConvNeXt). `(1, 0)` for ink on paper.
        centered: of drawings, whether each is moved to the middle and brought nearer to one size,
            see `keras_shared.layers.CenterInk`. Paper must become 0 by `pixel_range`, ink 1.
        kernel_initializer: initial kernels of the default tower, as of
            `keras_shared.initializers.get`; None for "he_normal". A `tower` that is given stays as
            it is.
        dtype: dtype policy; distance and probability are float32 in any case.
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        `[image_a, image_b]`, or a dict with these names, each (batch, height, width, channels)
        with values 0 to 255.

    Returns:
        A dict: `distance` (batch, 1) and `probability` (batch, 1) of "same".

    Raises:
        ValueError: for a tower whose embeddings are longer for larger images; for images that are
            no images, or of the wrong number of channels.

    Example:
        >>> import numpy as np
        >>> from keras_shared.zoo import SiameseNet
        >>> model = SiameseNet()
        >>> model.compile("adam", loss="contrastive", metrics=["accuracy"])
        >>> a, b = np.random.randint(0, 256, (2, 8, 28, 28, 1))
        >>> history = model.fit([a, b], np.array([0, 1] * 4), verbose=0)
        >>> model.verify(a, b).shape, model.embed(a).shape
        ((8,), (8, 576))

    Reference:
        Koch, Zemel, Salakhutdinov 2015, "Siamese Neural Networks for One-shot Image
        Recognition"; the tower's blocks: Vinyals et al. 2016, "Matching Networks for One Shot
        Learning", section 4.1.1, with Wu & He 2018, "Group Normalization", in the place of
        batch normalisation.
    """

    task = "verification"
    loss_names = (
        "binary_crossentropy", "contrastive", "n_pair", "prototypical", "triplet", "triplet_hard",
    )  # fmt: skip
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    description = (
        "Tells whether two images show the same class, also one that it never saw: one shared "
        "tower embeds both."
    )
    limits = (
        "It compares drawn characters, dark on light; its metrics say nothing of photographs or "
        "signatures, and two pictures of one hand may well differ for it."
    )

    def __init__(
        self,
        tower: keras.Layer | None = None,
        image_shape: tuple[PositiveInt | None, PositiveInt | None, Literal[1, 3]] = (None, None, 1),
        pixel_range: tuple[float, float] = (0.0, 1.0),
        dtype: Any = None,
        centered: bool = False,
        kernel_initializer: initializers.InitializerName | keras.initializers.Initializer | None = (
            None
        ),
        **kwargs: Any,
    ) -> None:
        # === Layers ===
        base = self._policy(dtype)
        tower = _default_tower(base, kernel_initializer) if tower is None else tower
        whole_numbers(image_shape, "image_shape", IMAGE, any_size=True)
        height, width, channels = _tower_input(tower, image_shape)
        low, high = (float(value) for value in pixel_range)
        if centered:
            _check_centered(height, width, (low, high))

        # === Embedding of one image ===
        image = keras.Input(image_shape, name="image")
        x = _with_channels(image, channels)
        rescale = layers.Rescaling((high - low) / 255, low, dtype=base, name="rescale")
        if centered and height and width:
            x = CenterInk(height, width, dtype=base, name="center_ink")(rescale(x))
        elif height and width and (height, width) != tuple(image_shape[:2]):
            x = layers.Resizing(height, width, antialias=True, dtype="float32", name="resize")(x)
        x = x if centered else rescale(x)
        features = tower(x)
        if isinstance(features, (dict, list, tuple)):
            raise ValueError(
                f"`tower` must return one tensor. Received: '{tower.name}' (of type "
                f"{type(tower).__name__}), which returns a {type(features).__name__}. Wrap it in a "
                "model that picks one of its outputs."
            )
        x = layers.Flatten(dtype="float32", name="flatten")(features)
        if x.shape[-1] is None:
            raise ValueError(
                f"`tower` returns maps of {tuple(features.shape[1:])} of images of open size, and "
                "embeddings of two sizes cannot be compared. Let the tower average its maps "
                "(pooling='avg', or keras.layers.GlobalAveragePooling2D at its end), or give "
                f"`image_shape` a height and width. Received: image_shape={tuple(image_shape)}"
            )
        x = layers.UnitNormalization(dtype="float32", name="normalize")(x)
        embedder = keras.Model(image, x, name="embedder")

        # === Two images ===
        images = [keras.Input(image_shape, name=name) for name in ("image_a", "image_b")]
        a, b = Shared(embedder, name="shared_embedder")(images)  # (batch, features) each
        squared = ops.sum(ops.square(a - b), axis=-1, keepdims=True)
        distance = ops.sqrt(ops.maximum(squared, 1e-12))  # sqrt has no gradient at 0
        same = layers.Dense(  # p = 1/2 where the distance is 1, the margin of the contrastive loss
            1, "sigmoid", kernel_initializer=keras.initializers.Constant(-5.0),
            bias_initializer=keras.initializers.Constant(5.0),
            dtype=self._policy(dtype, "probability", otherwise="float32"), name="probability",
        )  # fmt: skip
        super().__init__(images, {"distance": distance, "probability": same(distance)}, **kwargs)

        # === Config ===
        self.tower = tower
        self.embedder = embedder
        self.probability = same
        self.image_shape = tuple(image_shape)
        self.pixel_range = (low, high)
        self.centered = centered
        self.kernel_initializer = kernel_initializer
        self.base_policy = base

    @classmethod
    def image_shape_of(
        cls, image_shape: Any = (None, None, 1), **arguments: Any
    ) -> tuple[int, int, int]:
        height, width, channels = image_shape
        return (height or TOWER_SIZE[0], width or TOWER_SIZE[1], channels)

    @classmethod
    def from_preset(
        cls,
        preset: str | os.PathLike[str],
        version: int | None = None,
        image_shape: tuple[int | None, int | None, int] | None = None,
    ) -> Self:
        """Load a published SiameseNet, also for images of another size.

        Args:
            preset: see `keras_shared.zoo.ZooModel.from_preset`.
            version: number of the version; the newest by default.
            image_shape: see `with_image_shape`. None keeps the model's own.

        Raises:
            ValueError: as of `ZooModel.from_preset` and `with_image_shape`.

        Example:
            >>> from keras_shared.zoo import SiameseNet
            >>> SiameseNet.from_preset("siamese_omniglot", image_shape=(96, 96, 3)).image_shape
            (96, 96, 3)
        """
        model = super().from_preset(preset, version)
        return model if image_shape is None else model.with_image_shape(image_shape)

    def with_image_shape(self, image_shape: tuple[int | None, int | None, int]) -> Self:
        """This net for images of another size, with the same weights: the tower takes what it took.

        Args:
            image_shape: (height, width, channels) of one input image.

        Returns:
            A new model; this one stays as it is.

        Raises:
            ValueError: for channels that the tower cannot take.

        Example:
            >>> from keras_shared.zoo import SiameseNet
            >>> SiameseNet().with_image_shape((40, 60, 3)).image_shape
            (40, 60, 3)
        """
        model = type(self).from_config({**self.get_config(), "image_shape": tuple(image_shape)})
        model.set_weights(self.get_weights())
        return model

    def compile(
        self, optimizer: Any = "auto", loss: Any = "auto", *, metrics: Any = "auto", **kwargs: Any
    ) -> None:
        """As `keras.Model.compile`; one loss and one list of metrics are enough for both outputs.

        Args:
            optimizer: as in Keras; "auto" is Adam with a rate of 0.001.
            loss: `"contrastive"` or a `ContrastiveLoss` goes to the distance, any other single
                loss (`"binary_crossentropy"`, which "auto" stands for) to the probability. A dict
                goes by output, a list to distance and probability. With the contrastive loss
                alone, `w` and `v` follow the distances by a cross-entropy of their own: `loss` is
                the sum of both and of what layers add (regularisation), `distance_loss` the
                contrastive loss by itself.
            metrics: a list goes to the probability, a dict by output; "auto" is the accuracy where
                the loss is "auto" too, otherwise none.
            **kwargs: further arguments of `keras.Model.compile`; `weighted_metrics` go by output
                as `metrics` do, one number as `loss_weights` to the loss of both outputs.

        Labels of pairs are one array for both outputs, or go by output. `sample_weight` and
        `class_weight` of `fit`, `train_on_batch` and `evaluate` act on the loss, on the
        cross-entropy of `w` and `v`, and on `distance_loss`; Keras takes `class_weight` with
        labels of one array alone.

        Raises:
            ValueError: for a loss that compares the images of a batch, or of other outputs.

        Example:
            >>> from keras_shared.zoo import SiameseNet
            >>> SiameseNet().compile("adam", "binary_crossentropy", metrics=["accuracy", "auc"])
        """
        if isinstance(loss, str) and loss == "auto":
            loss = self.default_loss()
            metrics = list(self.default_metrics) if metrics == "auto" else metrics
        losses = _loss_by_output(loss)
        kwargs["weighted_metrics"] = _metrics_by_output(kwargs.get("weighted_metrics"))
        if losses and _is_contrastive(losses["distance"]) and losses["probability"] is None:
            # of the loss of one output Keras reports the sum alone
            alone = MeanLoss(losses["distance"], name="loss", dtype="float32")
            weighted = kwargs["weighted_metrics"] or {}
            own = keras.tree.flatten(weighted.get("distance") or [])
            own = [metric for metric in own if not isinstance(metric, MeanLoss)]  # once loaded
            kwargs["weighted_metrics"] = {**weighted, "distance": [alone, *own]}
        weights = kwargs.get("loss_weights")
        if losses and isinstance(weights, (int, float)):
            kwargs["loss_weights"] = dict.fromkeys(losses, weights)
        if losses and isinstance(weights, Mapping):  # Keras wants one of an output without a loss
            without = (output for output, own in losses.items() if own is None)
            kwargs["loss_weights"] = {**dict.fromkeys(without, 1.0), **weights}
        metrics = _metrics_by_output(None if metrics == "auto" else metrics)
        super().compile(optimizer, losses, metrics=metrics, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        y, sample_weight = _for_both(y), _for_both(sample_weight)
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if not isinstance(self.loss, dict) or self.loss.get("probability") is not None:
            return loss
        # a loss on the distance alone leaves w and v without gradient: let them follow
        p = self.probability(ops.stop_gradient(y_pred["distance"]))
        same = ops.cast(ops.reshape(y["probability"], (-1, 1)), p.dtype)
        weight = None if sample_weight is None else sample_weight["probability"]
        # a loss of Keras', which counts its part where a strategy adds up several workers
        return loss + keras.losses.BinaryCrossentropy()(same, p, sample_weight=weight)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().compute_metrics(x, _for_both(y), y_pred, _for_both(sample_weight))

    def halves(self) -> tuple[keras.Model, keras.Model]:
        """The embedder in two models: from images to what the tower takes, and on to embeddings.

        They read this model's own weights. The first has none: images that are seen many times,
        as in a training, need to pass it once.

        Example:
            >>> from keras_shared.zoo import SiameseNet
            >>> before, trunk = SiameseNet(image_shape=(105, 105, 3)).halves()
            >>> before.output.shape, trunk.output.shape
            ((None, 28, 28, 1), (None, 576))
        """
        last = "center_ink" if self.centered else "rescale"
        middle = self.embedder.get_layer(last).output
        return (
            keras.Model(self.embedder.input, middle, name="before"),
            keras.Model(middle, self.embedder.output, name="trunk"),
        )

    def embed(self, images: Any) -> np.ndarray:
        """The embedding of each image.

        Args:
            images: (batch, height, width, channels), 0 to 255.

        Returns:
            float32 array (batch, features) of unit vectors.

        Raises:
            ValueError: for arrays that are no such images.
        """
        embeddings: np.ndarray = _outputs(self.embedder, self._checked(images, "images"))
        return embeddings

    def verify(self, image_a: Any, image_b: Any) -> np.ndarray:
        """The probability that two images show the same thing, pair by pair.

        Args:
            image_a: (batch, height, width, channels), 0 to 255.
            image_b: as many images again; height and width may differ.

        Returns:
            float32 array (batch,).

        Raises:
            ValueError: for arrays that are no such images, or not equally many.
        """
        pair = [self._checked(image_a, "image_a"), self._checked(image_b, "image_b")]
        if len(pair[0]) != len(pair[1]):
            raise ValueError(
                "`image_a` and `image_b` must hold equally many images. "
                f"Received: {len(pair[0])} and {len(pair[1])}"
            )
        probability: np.ndarray = _outputs(self, pair)["probability"][:, 0]
        return probability

    def calibrate(
        self,
        distances: Any,
        same: Any,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
    ) -> None:
        """Fit `w` and `v` to pairs that the tower was not trained on (Platt scaling).

        Args:
            distances: (pairs,) or (pairs, 1), the model's output `distance`.
            same: (pairs,) 1 or True for "same".
            sample_weight: (pairs,), how much each counts; None for all alike.
            class_weight: how much "different" (0) and "same" (1) count, besides, as of
                `keras.Model.fit`; None for both alike.

        Raises:
            ValueError: if all pairs are of one kind, or the lengths differ.

        Example:
            >>> from keras_shared.zoo import SiameseNet
            >>> model = SiameseNet()
            >>> model.calibrate([0.1, 0.4, 0.6, 0.9], [1, 1, 0, 0])
            >>> w, v = model.probability.get_weights()
            >>> round(-v.item() / w.item(), 2)  # the distance at which p = 1/2
            0.5

        Reference:
            Platt 1999, "Probabilistic Outputs for Support Vector Machines".
        """
        calibrate(self.probability, distances, same, sample_weight, class_weight)

    def threshold(self, distances: Any, same: Any, false_accept_rate: float = 0.001) -> float:
        """The probability from which on two images are taken for one thing, seldom in error.

        Args:
            distances: (pairs,) or (pairs, 1), the model's output `distance`, of pairs that the
                tower was not trained on.
            same: (pairs,) 1 or True for "same".
            false_accept_rate: share of pairs of two different things that may be taken for one.

        Returns:
            A probability, for `Gallery(model, threshold)` and `keras-shared verify --threshold`.

        Raises:
            ValueError: for a rate that so few pairs cannot show: 0.001 needs a thousand pairs of
                different things.

        Example:
            >>> from keras_shared.zoo import SiameseNet
            >>> distances, same = [0.1, 0.2, 0.6, 0.7, 0.8, 0.9], [1, 1, 0, 0, 0, 0]
            >>> round(SiameseNet().threshold(distances, same, false_accept_rate=0.25), 3)
            0.881
        """
        weight, bias = line(self.probability)
        largest = threshold(distances, same, false_accept_rate)
        different = np.ravel(distances)[~np.ravel(same).astype(bool)]
        apart = np.append(different[different > largest], largest)
        probability = (1 / (1 + np.exp(-(weight * apart + bias)))).astype("float32")
        refused, accepted = probability[:-1].max(initial=0), probability[-1]
        # of float32, in which a model answers, both may be one number
        limit = accepted if accepted > refused else np.nextafter(refused, np.float32(2))
        if limit > 1:
            raise ValueError(
                f"A rate of {false_accept_rate} is out of reach: more pairs of two different "
                "things have the probability 1. Calibrate the model on such pairs."
            )
        return float(limit)

    def signatures(self) -> dict[str, Signature]:
        def verify(image_a: Any, image_b: Any) -> dict[str, Any]:
            outputs = self([image_a, image_b], training=False)
            return {name: ops.squeeze(value, -1) for name, value in outputs.items()}

        def embed(image: Any) -> dict[str, Any]:
            return {"embedding": self.embedder(image, training=False)}

        image = keras.KerasTensor((None, *self.image_shape))
        taken = _tower_input(self.tower, self.image_shape)
        sides = [self.image_shape[i] or taken[i] for i in range(2)]
        size = (sides[0], sides[1]) if all(sides) else (None, None)
        return {
            "verify": Signature(verify, {"image_a": image, "image_b": image}, size),
            "embed": Signature(embed, {"image": image}, size),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "tower": keras.saving.serialize_keras_object(self.tower),
            "image_shape": self.image_shape,
            "pixel_range": self.pixel_range,
            "centered": self.centered,
            "kernel_initializer": initializers.as_config(self.kernel_initializer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        tower = keras.saving.deserialize_keras_object(config["tower"], custom_objects)
        return super().from_config({**config, "tower": tower}, custom_objects)

    @classmethod
    def bright_ink(cls, **config: Any) -> bool | None:
        if not config.get("centered") or "pixel_range" not in config:
            return None  # photographs, perhaps
        dark, bright = config["pixel_range"]
        return bool(dark < bright)

    def _checked(self, images: Any, name: str) -> np.ndarray:
        bright_ink = self.bright_ink(centered=self.centered, pixel_range=self.pixel_range)
        return checked_images(images, name, self.image_shape, bright_ink)


def _outputs(model: keras.Model, inputs: Any) -> Any:
    """What `predict` gives, without its 100 milliseconds of setting up where one batch is all."""
    if len(keras.tree.flatten(inputs)[0]) <= BATCH:
        return model.predict_on_batch(inputs)
    return model.predict(inputs, BATCH, verbose=0)


def _default_tower(dtype: Any, kernel_initializer: Any) -> keras.Model:
    image = x = keras.Input((*TOWER_SIZE, 1), name="tower_input")
    for i, filters in enumerate(FILTERS, 1):
        x = layers.Conv2D(
            filters, 3, padding="same", use_bias=False,
            kernel_initializer=initializers.get(kernel_initializer or "he_normal"),
            dtype=dtype, name=f"conv_{i}",
        )(x)  # fmt: skip
        if i in POOLED:  # before the normalisation, which has less to do then
            x = layers.MaxPooling2D(dtype=dtype, name=f"pool_{i}")(x)
        x = layers.GroupNormalization(8, dtype=dtype, name=f"norm_{i}")(x)
        if i < len(FILTERS):
            x = layers.ReLU(dtype=dtype, name=f"relu_{i}")(x)
    return keras.Model(image, layers.Flatten(dtype=dtype, name="features")(x), name="tower")


def _tower_input(tower: keras.Layer, image_shape: Any) -> tuple[int | None, int | None, int]:
    """What the tower takes, or the image's own shape for a layer that does not say."""
    # a Sequential that is not built and a subclassed model have none
    given = getattr(tower, "input_shape", None) if isinstance(tower, keras.Model) else None
    shape: tuple[int | None, int | None, int] = given[1:] if given else image_shape
    if len(shape) != 3 or len(image_shape) != 3 or not shape[-1]:
        raise ValueError(
            "`tower` must take images (height, width, channels), and `image_shape` give one. "
            f"Received: a tower that takes {shape}, image_shape={image_shape}"
        )
    return shape


def _check_centered(height: Any, width: Any, pixel_range: Any) -> None:
    if not (height and width):
        raise ValueError(
            "`centered` needs a tower that takes images of one size. Received: a tower that takes "
            f"{(height, width)}"
        )
    if sorted(pixel_range) != [0, 1]:
        raise ValueError(
            "`centered` needs a `pixel_range` of (1, 0), for dark ink on light paper, or (0, 1). "
            f"Received: pixel_range={pixel_range}"
        )


def _with_channels(image: Any, channels: int) -> Any:
    given = image.shape[-1]
    if given == channels:
        return image
    if channels == 1:
        return ops.mean(image, axis=-1, keepdims=True)
    if given == 1:
        return ops.repeat(image, channels, axis=-1)
    raise ValueError(f"The tower takes {channels} channels. Received: image_shape[-1]={given}")


def _loss_by_output(loss: Any) -> dict[str, Any] | None:
    """The loss of each output; a single one goes to the output that it is made for."""
    if loss is None:
        return None
    if not isinstance(loss, (dict, list, tuple)):
        loss = {"distance" if _is_contrastive(loss) else "probability": loss}
    elif not isinstance(loss, dict) and len(loss) == len(OUTPUTS):
        loss = dict(zip(OUTPUTS, loss, strict=True))
    if not isinstance(loss, dict) or not set(loss) <= set(OUTPUTS):
        raise ValueError(
            f"`loss` must be one loss, or one for each output, {list(OUTPUTS)}. Received: {loss}"
        )
    whole = [one for one in loss.values() if isinstance(_named(one), EmbeddingLoss)]
    if whole:
        name = type(_named(whole[0])).__name__
        raise ValueError(
            f"{name} compares the embeddings of a whole batch, and this model takes pairs. Compile "
            f"and fit `model.embedder`, which takes images and their classes, with "
            f"`keras_shared.losses.{name}()`; then `calibrate` the model."
        )
    made = {key: ContrastiveLoss() if _is_name(one) else one for key, one in loss.items()}
    return {output: made.get(output) for output in OUTPUTS}


def _is_contrastive(loss: Any) -> bool:
    return _is_name(loss) or isinstance(loss, ContrastiveLoss)


def _is_name(loss: Any) -> bool:
    """Whether it stands for a `ContrastiveLoss`: its name, or the function that it averages."""
    return loss is contrastive_loss or (isinstance(loss, str) and loss == "contrastive")


def _named(loss: Any) -> Any:
    return LOSSES[loss]() if isinstance(loss, str) and loss in SiameseNet.loss_names else loss


def _metrics_by_output(metrics: Any) -> Any:
    return metrics if metrics is None or isinstance(metrics, dict) else {"probability": metrics}


def _for_both(values: Any) -> Any:
    """Labels or weights by output; those of one output are those of the other."""
    if isinstance(values, (list, tuple)) and len(values) == len(OUTPUTS):
        values = dict(zip(OUTPUTS, values, strict=True))
    if isinstance(values, (list, tuple)) or (isinstance(values, dict) and {*values} - {*OUTPUTS}):
        given = list(values) if isinstance(values, dict) else f"{len(values)} of them in a list"
        raise ValueError(
            "Labels and weights of pairs are one array, or one for each output, "
            f"{list(OUTPUTS)}. Received: {given}"
        )
    if isinstance(values, dict):
        known = {name: value for name, value in values.items() if value is not None}
        return {**dict.fromkeys(OUTPUTS, next(iter(known.values()), None)), **known}
    return values if values is None else dict.fromkeys(OUTPUTS, values)
