"""The main job in a minute, on data that need no network."""

import pathlib
import subprocess
import sys
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from keras_shared.datasets import load_digits
from keras_shared.evaluation import evaluate
from keras_shared.gallery import Gallery
from keras_shared.presets.loading import load
from keras_shared.presets.publishing import publish
from keras_shared.recipes import read_recipe
from keras_shared.terminal import TextTable, console
from keras_shared.training import Run, train, training_data
from keras_shared.training.build import base_of
from keras_shared.zoo import SiameseNet

RECIPE = pathlib.Path(__file__).with_name("demo_recipe.toml")
START = "siamese_omniglot"
ENROLLED = 5  # images of each name
ASKED = 300.0  # seconds that a process with TensorFlow alone may take

# run by a Python that imports TensorFlow alone: the SavedModel stands by itself
_ASK_ALONE = """
import sys, tensorflow as tf
folder, *files = sys.argv[1:]
verify = tf.saved_model.load(folder).signatures["verify_bytes"]
a, b, c = (open(file, "rb").read() for file in files)
pairs = {"image_a_bytes": tf.constant([a, b]), "image_b_bytes": tf.constant([b, c])}
print(*verify(**pairs)["probability"].numpy())
assert "keras_shared" not in sys.modules
"""


def demo(out_dir: str) -> None:
    """Fine-tune, look, evaluate, identify, publish, ask, load, and prove that the tie still holds.

    Args:
        out_dir: folder for the run, the published model and the plots. Begun again there, the
            training is not repeated.
    """
    started, screen, out = time.monotonic(), console(), pathlib.Path(out_dir)
    recipe = read_recipe(RECIPE)
    data = training_data(recipe)

    held_out = ", ".join(getattr(recipe.data, "test_groups", ()))
    screen.rule(f"1. Fine-tune {START} for digits; {held_out} are held out for the test")
    model = train(recipe, data, out / "run", start=_for_digits(), base=base_of(START))

    screen.rule("2. What is shared: every weight of the tower is read by both images")
    _show_shared(screen, model)

    screen.rule(f"3. Verification of digits {held_out}, which it never saw")
    facts = Run(out / "run").facts()  # the training's; the test digits are read here alone
    test = evaluate(model, recipe, out / "run", training=facts)["test"]
    for key, value in test.items():
        screen.print(f"  {key.replace('_', ' ')}: {value:,}")

    screen.rule(f"4. A gallery: {ENROLLED} images of each are enrolled, the others identified")
    _identify(screen, model, recipe.data.test_groups)

    screen.rule("5. Publish, and ask the SavedModel from a process with TensorFlow alone")
    version = publish(model, out / "saved_models" / recipe.name)
    images = _write_images(out)
    for a, b, probability in zip(images, images[1:], _ask(version, images), strict=False):
        screen.print(f"  {a.name} and {b.name}: probability of 'same' {float(probability):.3f}")

    screen.rule("6. Load it in Keras and fine-tune for an epoch")
    tuned = load(version)
    tuned.compile()  # with what its task is trained with
    tuned.fit(data.batches(recipe.training.epochs, recipe.training.epochs + 1), shuffle=False)

    screen.rule("7. The tie still holds")
    _prove_tie(screen, tuned)

    screen.rule(f"done in {time.monotonic() - started:.0f} seconds")
    screen.print(
        f"  run, metrics, card and ROC curve: {out / 'run'}/\n"
        f"  published model:                  {version}/\n"
        f"  next: keras-shared verify {images[0]} {images[1]} --model {version.parent}",
        soft_wrap=True,
    )


def _ask(version: pathlib.Path, images: list[pathlib.Path]) -> list[str]:
    """The probabilities that a process with TensorFlow alone gives."""
    asked = subprocess.run(
        [sys.executable, "-c", _ASK_ALONE, str(version), *map(str, images)],
        capture_output=True, text=True, errors="replace", timeout=ASKED, check=False,
    )  # fmt: skip
    if asked.returncode:
        raise RuntimeError(
            f"TensorFlow alone cannot ask {version}: its process ended with status "
            f"{asked.returncode}: {asked.stderr.strip()[-1000:]}"
        )
    return asked.stdout.split()


def _for_digits() -> SiameseNet:
    """The published net with the same tower, for small images that are bright on dark."""
    published: Any = load(START, compile=False)
    model = SiameseNet(published.tower, image_shape=(8, 8, 1), centered=True)
    model.probability.set_weights(published.probability.get_weights())
    return model


def _identify(screen: Console, model: SiameseNet, names: tuple[str, ...]) -> None:
    digits, gallery = load_digits("test"), Gallery(model, threshold=0.0)
    pixels = np.asarray(digits.images)
    asked, truth = [], []
    for name in names:
        images = pixels[digits.labels == int(name)]
        gallery.enrol(name, images[:ENROLLED])
        asked.append(images[ENROLLED:])
        truth += [name] * len(images[ENROLLED:])
    found = [identity.name for identity in gallery.identify(np.concatenate(asked))]
    right = sum(a == b for a, b in zip(found, truth, strict=True))
    screen.print(f"  {right} of {len(truth)} digits identified, {100 * right / len(truth):.1f} %")


def _show_shared(screen: Console, model: SiameseNet) -> None:
    table = TextTable("weight", "shape", "numbers", "read by")
    images = ", ".join(tensor.name for tensor in model.inputs)
    for variable in model.embedder.variables:
        size = f"{int(np.prod(variable.shape)):,}"
        table.add_row(variable.path, str(tuple(variable.shape)), size, images)
    screen.print(table)
    once = model.embedder.count_params()
    screen.print(f"  {once:,} numbers; two towers of their own would have {2 * once:,}")


def _write_images(out: pathlib.Path) -> list[pathlib.Path]:
    digits = load_digits("test")
    first, second = np.flatnonzero(digits.labels == 2)[:2]
    third = np.flatnonzero(digits.labels == 5)[0]
    paths = [out / "two_a.png", out / "two_b.png", out / "five.png"]
    for path, index in zip(paths, (first, second, third), strict=True):
        path.write_bytes(tf.io.encode_png(digits.images[index]).numpy())
    return paths


def _prove_tie(screen: Console, model: SiameseNet) -> None:
    """One change to one variable must reach both images alike."""
    image = load_digits("test").images[:1]
    pair = [image, image[:, ::-1]]
    both_ways = [pair, pair[::-1]]
    kernel = model.tower.trainable_variables[0]
    before = [float(model.predict(p, verbose=0)["distance"][0, 0]) for p in both_ways]
    kernel.assign(kernel * keras.random.uniform(kernel.shape, 0.5, 1.5, seed=1))
    after = [float(model.predict(p, verbose=0)["distance"][0, 0]) for p in both_ways]
    screen.print(
        f"  distance(a, b) = {before[0]:.5f}, distance(b, a) = {before[1]:.5f}\n"
        f"  after a change of {kernel.path}: {after[0]:.5f} and {after[1]:.5f}\n"
        f"  parameters: {model.count_params():,}"
    )
    if abs(after[0] - after[1]) > 1e-5 or abs(after[0] - before[0]) < 1e-6:
        raise RuntimeError("The tie is broken: the two images no longer read one tower.")
