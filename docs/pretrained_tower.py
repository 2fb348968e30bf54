"""A pretrained tower compares your images: `python docs/pretrained_tower.py [WEIGHTS]`.

WEIGHTS is a file of MobileNetV2's weights without its top (`keras.applications` saves them under
~/.keras/models), or "imagenet", which downloads them. Without it the tower starts at random, which
shows the steps and needs no network, but not what pretraining is worth. The pictures are those of
own_images.py: twenty of each of three shapes, of several sizes and colours.
"""

import pathlib
import sys
import tempfile

import keras
import numpy as np
from keras import layers
from own_images import draw

import keras_shared
from keras_shared.datasets import from_folder
from keras_shared.losses import NPairLoss
from keras_shared.zoo import SiameseNet


def main(weights: str | None = None) -> None:
    home = pathlib.Path(tempfile.mkdtemp())
    draw(home / "shapes")
    train, test = (from_folder(home / "shapes", split, (48, 48, 3)) for split in ("train", "test"))
    images, unseen = train.images.read(), test.images.read()
    keras.utils.set_random_seed(1)

    # === The tower: MobileNetV2 with a layer of its own, for images of any size ===
    base = keras.applications.MobileNetV2(
        (None, None, 3), alpha=0.35, include_top=False, pooling="avg", weights=weights
    )
    tower = keras.Sequential([base, layers.Dense(64)])
    # pixels 0 to 255 become -1 to 1, as mobilenet_v2.preprocess_input makes them; a tower that
    # scales them itself (EfficientNet, MobileNetV3) takes pixel_range=(0, 255)
    model = SiameseNet(tower, image_shape=(None, None, 3), pixel_range=(-1, 1))
    prepared = keras.applications.mobilenet_v2.preprocess_input(unseen.astype("float32"))
    embeddings = tower.predict(prepared, verbose=0)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    print(f"own preprocessing: {np.allclose(embeddings, model.embed(unseen), atol=1e-4)}")

    # === First frozen, then unfrozen but for BatchNormalization, at a small rate ===
    # compile again after each change of `trainable`
    def fit(rate: float, epochs: int) -> None:
        model.embedder.compile(keras.optimizers.Adam(rate), NPairLoss())
        model.embedder.fit(images, train.labels, batch_size=24, epochs=epochs, verbose=0)
        print(f"{len(model.embedder.trainable_variables)} weights trained")

    base.trainable = False  # its BatchNormalization keeps its statistics, too
    fit(0.003, epochs=4)
    base.trainable = True
    for layer in base.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    fit(0.0003, epochs=1)

    # === Probabilities from pairs that were not trained on, and the file ===
    held_out = images[train.held_out], train.labels[train.held_out]
    a, b = np.triu_indices(len(held_out[1]), 1)
    distances = np.linalg.norm(
        np.diff(model.embed(held_out[0])[np.stack([a, b])], axis=0)[0], axis=1
    )
    model.calibrate(distances, held_out[1][a] == held_out[1][b])
    model.save(home / "shapes_compared.keras")
    again = keras_shared.load(home / "shapes_compared.keras")
    pairs = np.random.default_rng(1).integers(0, len(unseen), (2, 60))
    said = again.verify(unseen[pairs[0]], unseen[pairs[1]]) >= 0.5
    right = np.mean(said == (test.labels[pairs[0]] == test.labels[pairs[1]]))
    print(f"{100 * right:.0f} % of 60 pairs of held-out pictures are told right")


if __name__ == "__main__":
    main(*sys.argv[1:])
