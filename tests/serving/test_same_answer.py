"""One picture, one answer: Keras, the command line, the client and the published graph."""

import functools
import io
import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw

import keras_shared
from keras_shared.cli import main
from keras_shared.files.pictures import read_picture
from keras_shared.presets.names import version_dir
from keras_shared.serving import Client

sys.path.insert(0, __file__.rpartition("/")[0])
from recording import Server, from_folder

DIGITS, PAIRS = "lenet5_modern_mnist", "siamese_omniglot"


@functools.cache
def keras_model(name):
    return keras_shared.load(name)


@functools.cache
def served(name):
    return from_folder(version_dir(name))


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        server.models = {name: {1: served(name)} for name in (DIGITS, PAIRS)}
        yield server


def drawing():
    """A coloured 3 on a dark ground, not square, larger than any model takes it."""
    image = Image.new("RGB", (120, 140), (10, 20, 40))
    points = [(30, 20), (80, 20), (55, 60), (85, 85), (60, 120), (30, 110)]
    ImageDraw.Draw(image).line(points, fill=(250, 240, 180), width=12)
    return image


def deep(image):
    return Image.fromarray(np.asarray(image.convert("L")).astype("uint16") * 257)


def lying():
    note = Image.Exif()
    note[0x0112] = 8
    return note


def clear(image):
    grey = image.convert("L")
    return Image.merge("RGBA", (*image.split(), Image.eval(grey, lambda v: 255 if v > 60 else 0)))


KINDS = {
    "png": lambda file: drawing().save(file, "PNG"),
    "grey": lambda file: drawing().convert("L").save(file, "PNG"),
    "jpeg": lambda file: drawing().save(file, "JPEG", quality=92),
    "turned": lambda file: drawing().rotate(90, expand=True).save(file, "JPEG", exif=lying()),
    "clear": lambda file: clear(drawing()).save(file, "PNG"),
    "grey with alpha": lambda file: clear(drawing()).convert("LA").save(file, "PNG"),
    "1 bit": lambda file: drawing().convert("1").save(file, "PNG"),
    "16 bits": lambda file: deep(drawing()).save(file, "PNG"),
    "palette": lambda file: drawing().quantize(8).save(file, "PNG"),
    "cmyk": lambda file: drawing().convert("CMYK").save(file, "JPEG"),
    "gif": lambda file: drawing().save(file, "GIF", save_all=True, append_images=[drawing()]),
    "bmp": lambda file: drawing().save(file, "BMP"),
    "webp": lambda file: drawing().save(file, "WEBP"),
}


def to_keras(content, size, channels):
    """What a user does by hand: grey or colours, and the size that the model takes."""
    pixels = read_picture(content).astype("float32")
    if channels == 1 and pixels.shape[-1] == 3:
        pixels = np.floor(pixels @ np.array([[0.299], [0.587], [0.114]]))  # as libpng does
    pixels = np.broadcast_to(pixels, (*pixels.shape[:2], channels))
    return tf.image.resize(pixels, size, antialias=True).numpy()[None]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_class_is_the_same_for_all(kind, server, tmp_path, capsys):
    KINDS[kind](tmp_path / "given")
    content = (tmp_path / "given").read_bytes()
    scores = keras_model(DIGITS).predict(to_keras(content, (28, 28), 1), verbose=0)[0]
    assert main(["predict", DIGITS, str(tmp_path / "given"), "--json"]) == 0
    [asked] = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(asked["scores"], scores, atol=0.1)
    for url in (server.rest, server.grpc):
        with Client(url) as client:
            answer = client.predict(DIGITS, {"image_bytes": [content]}, "classify_bytes")
        # a JPEG goes as it is, and TensorFlow decodes it a little otherwise than Pillow
        np.testing.assert_allclose(answer["scores"][0], asked["scores"], atol=0.1)
        assert answer["label"][0] == asked["label"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_is_the_same_for_all(kind, server, tmp_path, capsys):
    KINDS[kind](tmp_path / "given")
    other = io.BytesIO()
    drawing().transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other, "PNG")
    (tmp_path / "other").write_bytes(other.getvalue())
    content = (tmp_path / "given").read_bytes()
    a, b = (to_keras(one, (105, 105), 3) for one in (content, other.getvalue()))
    [expected] = keras_model(PAIRS).verify(a, b)
    assert main(["verify", str(tmp_path / "given"), str(tmp_path / "other")]) == 0
    said = capsys.readouterr().out
    asked = float(said.partition("probability ")[2].partition(" ")[0])
    assert asked == pytest.approx(float(expected), abs=0.01)
    with Client(server.rest) as client:
        assert client.verify(content, other.getvalue()) == pytest.approx(asked, abs=0.01)


@pytest.mark.slow
def test_the_client_refuses_what_is_no_picture(server):
    with Client(server.rest) as client:
        for content in (b"hello", b"<svg/>", b""):
            with pytest.raises(
                ValueError, match=r"The input 'image_bytes': .* expected PNG, JPEG, GIF, BMP or"
            ):
                client.predict(DIGITS, {"image_bytes": [content]}, "classify_bytes")
            with pytest.raises(ValueError, match="'image_a_bytes': .* expected PNG, JPEG"):
                client.verify(content, content)


def test_bytes_of_another_kind_are_left_alone(server):
    from recording import from_function

    sides = {"audio_bytes": ("string", (None,))}
    server.models["m"] = {1: from_function(lambda audio_bytes: {"audio_bytes": audio_bytes},
                                           sides, sides)}  # fmt: skip
    with Client(server.rest) as client:
        assert client.predict("m", {"audio_bytes": [b"RIFF"]})["audio_bytes"].tolist() == [b"RIFF"]
