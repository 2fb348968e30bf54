"""Your own images, from a folder to a served model, in Python: `python docs/own_images.py`.

The same by commands is in README.md. A folder is drawn first, with twenty
pictures of each of three shapes, of several sizes and colours.
"""

import pathlib
import random
import tempfile

import keras
from PIL import Image, ImageDraw

import keras_shared
from keras_shared.datasets import from_folder
from keras_shared.zoo import LeNet5

SHAPES = ("disc", "frame", "stripe")


def draw(folder: pathlib.Path, each: int = 20) -> None:
    """Write `each` pictures of each shape into `folder`, a sub-folder for each."""
    random.seed(1)
    for name in SHAPES:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            side = random.randint(40, 90)
            image = Image.new("RGB", (side, side), tuple(random.choices(range(60), k=3)))
            colour = tuple(random.choices(range(150, 256), k=3))
            left, top = (random.randint(2, side // 3) for _ in range(2))
            box = (left, top, left + side // 2, top + side // 2)
            pen = ImageDraw.Draw(image)
            if name == "disc":
                pen.ellipse(box, fill=colour)
            elif name == "frame":
                pen.rectangle(box, outline=colour, width=side // 10)
            else:
                pen.line(box, fill=colour, width=side // 10)
            image.save(folder / name / f"{number}.png")


def main() -> None:
    home = pathlib.Path(tempfile.mkdtemp())
    draw(home / "shapes")

    # === A fifth of each class tests, and a fifth of the rest validates, by the seed ===
    train, test = (from_folder(home / "shapes", split, (28, 28, 1)) for split in ("train", "test"))
    images, held_out = train.images.read(), train.held_out
    rest = [i for i in range(len(images)) if i not in set(held_out)]

    # === The published net with new logits, beside the same net from nothing ===
    reached = {}
    for start in ("lenet5_modern_mnist", "nothing"):
        keras.utils.set_random_seed(1)
        if start == "nothing":
            model = LeNet5("modern", class_names=train.class_names)
        else:
            model = LeNet5.from_preset(start, class_names=train.class_names)
        model.compile()
        model.fit(
            images[rest], train.labels[rest], batch_size=16, epochs=20, verbose=0,
            validation_data=(images[held_out], train.labels[held_out]),
        )  # fmt: skip
        reached[start] = model.evaluate(
            test.images.read(), test.labels, verbose=0, return_dict=True
        )["accuracy"]
        if start != "nothing":
            version = keras_shared.publish(model, home / "saved_models" / "shapes")
    for start, accuracy in reached.items():
        print(f"from {start}: {100 * accuracy:.0f} % of {len(test.labels)} held-out pictures")

    # === The published folder answers, in Keras and in TF Serving ===
    again = keras_shared.load(version)
    for shape in SHAPES:
        [answer] = again.classify(from_folder(home / "shapes", "test", (28, 28, 1)).images.read(
            test.labels == SHAPES.index(shape))[:1])  # fmt: skip
        print(f"a {shape} is read as {answer}")
    print(f"serve it: keras-shared serve {version.parent}")


if __name__ == "__main__":
    main()
