"""The page of the embedded engine in a browser: draw, upload, move sliders, type, on a phone."""

import base64
import io
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import keras_shared
from keras_shared.files.pictures import read_picture
from keras_shared.presets.names import locate
from keras_shared.zoo import TiedLanguageModel

sys.path.insert(0, __file__.rpartition("/")[0])
from embedded_server import serving

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PICTURES = pathlib.Path(keras_shared.__file__).parent / "pictures"
NAMES = ("lenet5_mnist", "siamese_omniglot", "tied_autoencoder_mnist")
WORDS = ["the", "cat", "sat"]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []  # which root must do without
        browser = driver.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "words"
    keras_shared.publish(TiedLanguageModel(WORDS, "whitespace", units=4, num_layers=1), folder)
    with serving({**{name: locate(name).resolve() for name in NAMES}, "words": folder}) as server:
        yield server


@pytest.fixture
def page(browser, server, request):
    context = browser.new_context(viewport=getattr(request, "param", None))
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.goto(server.rest)
    page.get_by_text("4 models answer.").wait_for()
    yield page
    context.close()
    assert wrong == []


def section(page, name):
    return page.locator("section").filter(has=page.get_by_role("heading", name=name, exact=True))


def ask(part, name):
    part.get_by_role("button", name=f"Ask {name}").click()
    said = part.locator("output").first
    part.page.wait_for_function("(one) => one.textContent !== ''", arg=said.element_handle())
    return said.text_content()


def test_a_digit_from_a_file(page):
    part = section(page, "lenet5_mnist")
    part.locator("input[type=file]").set_input_files(PICTURES / "digit.png")
    assert ask(part, "lenet5_mnist") == "label: 7"
    assert part.get_by_role("row").filter(has_text="7").count() >= 1  # of the scores


def test_a_digit_is_drawn(page):
    part = section(page, "lenet5_mnist")
    box = part.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 80, box["y"] + 70)
    page.mouse.down()
    for x, y in ((200, 70), (130, 220)):
        page.mouse.move(box["x"] + x, box["y"] + y, steps=8)
    page.mouse.up()
    assert ask(part, "lenet5_mnist") == "label: 7"


def test_a_digit_is_drawn_by_keys(page):
    part = section(page, "lenet5_mnist")
    part.locator("canvas").focus()
    keys = ["ArrowUp"] * 8 + [" "] + ["ArrowDown"] * 17
    for key in keys:
        page.keyboard.press(key)
    assert page.locator("#said").text_content().startswith("pen down at 140, ")
    assert ask(part, "lenet5_mnist") == "label: 1"


def saved(image, file):
    """A picture of one kind that a graph reads otherwise than a person."""
    note = Image.Exif()
    note[0x0112] = 6  # turn it by 90 degrees to the right
    kinds = {
        "turned.jpg": lambda: image.rotate(90, expand=True).save(file, exif=note, quality=95),
        "clear.png": lambda: image.save(file),
        "colours.gif": lambda: image.save(file),
        "plain.bmp": lambda: image.save(file),
        "photo.webp": lambda: image.save(file, lossless=True),
        "print.jpg": lambda: image.convert("CMYK").save(file, quality=95),
    }
    if file.name == "clear.png":  # black where it is seen through, too
        alpha = image.convert("L").point(lambda light: 0 if light > 127 else 255)
        image = Image.new("RGBA", image.size, "black")
        image.putalpha(alpha)
    kinds[file.name]()
    return file


@pytest.mark.parametrize(
    "name", ["turned.jpg", "clear.png", "colours.gif", "plain.bmp", "photo.webp", "print.jpg"]
)
def test_a_picture_is_sent_as_it_is_seen(page, tmp_path, name):
    image = Image.new("RGB", (60, 40), "black")
    image.paste("white", (5, 5, 50, 15))
    file = saved(image, tmp_path / name)
    part = section(page, "lenet5_mnist")
    part.locator("input[type=file]").set_input_files(file)
    with page.expect_request("**/v1/models/lenet5_mnist:predict") as asked:
        assert ask(part, "lenet5_mnist").startswith("label: ")
    sent = base64.b64decode(asked.value.post_data_json["inputs"]["image_bytes"][0]["b64"])
    with Image.open(io.BytesIO(sent)) as found:
        assert found.format == "PNG" and found.getextrema()[3:] in [(), ((255, 255),)]
        found = np.asarray(found.convert("RGB"), float)
    expected = np.broadcast_to(read_picture(file), (40, 60, 3))
    assert np.abs(found - expected).mean() < 8
    canvas = part.locator("canvas").evaluate(
        "(c) => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )
    seen = Image.fromarray(np.array(canvas, "uint8").reshape(280, 280, 4)).convert("RGB")
    assert np.abs(np.asarray(seen.resize((60, 40)), float) - expected).mean() < 12


def test_a_large_photo_is_no_larger_than_a_server_takes(page, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (4500, 5000, 3), "uint8")
    Image.fromarray(noise).save(tmp_path / "photo.jpg", quality=70)
    part = section(page, "lenet5_mnist")
    part.locator("input[type=file]").set_input_files(tmp_path / "photo.jpg")
    assert ask(part, "lenet5_mnist").startswith("label: ")


def test_what_is_no_picture_or_is_drawn_over(page, tmp_path):
    part, file = section(page, "lenet5_mnist"), tmp_path / "notes.png"
    file.write_text("no picture")
    part.locator("input[type=file]").set_input_files(file)
    page.get_by_text("notes.png cannot be read: choose a PNG, JPEG, GIF, BMP or WebP").wait_for()
    assert part.locator("input[type=file]").input_value() == ""
    part.locator("input[type=file]").set_input_files(PICTURES / "digit.png")
    part.locator("canvas").click()
    assert part.locator("input[type=file]").input_value() == ""
    assert ask(part, "lenet5_mnist").startswith("label: ")


@pytest.mark.parametrize(("other", "said"), [(2, "the same"), (3, "not the same")])
def test_two_pictures(page, other, said):
    part = section(page, "siamese_omniglot")
    for number, place in ((1, 0), (other, 1)):
        file = part.locator("input[type=file]").nth(place)
        file.set_input_files(PICTURES / f"character_{number}.png")
    assert ask(part, "siamese_omniglot").startswith(f"{said} (probability ")


def pixels(canvas):
    found = canvas.evaluate(
        "(c) => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )
    return np.array(found).reshape(28, 28, 4)[..., 0]


def test_through_the_code_of_an_autoencoder(page):
    part = section(page, "tied_autoencoder_mnist")
    part.locator("input[type=file]").set_input_files(PICTURES / "digit.png")
    sliders, shown = part.locator("input[type=range]"), part.locator("canvas.pixels")
    assert sliders.count() == 30
    part.get_by_role("button", name="Take its code").click()
    model = keras_shared.load("tied_autoencoder_mnist")
    digit = np.asarray(Image.open(PICTURES / "digit.png"), "float32").reshape(1, 784) / 255
    expected = 255 * np.asarray(model.predict(digit, verbose=0)).reshape(28, 28)
    page.wait_for_function(
        "(c) => c.getContext('2d').getImageData(0, 0, 28, 28).data.some((v, i) => i % 4 < 3 && v)",
        arg=shown.element_handle(),
    )
    page.wait_for_timeout(500)
    before = pixels(shown)
    assert np.abs(before - expected).mean() < 3  # sliders have steps of 0.01
    sliders.first.focus()
    for _ in range(40):
        page.keyboard.press("PageUp")
    page.wait_for_timeout(500)
    assert np.abs(pixels(shown) - before).max() > 20


def test_a_text_goes_on(page):
    part = section(page, "words")
    part.locator("textarea").fill("the cat")
    part.get_by_label("max new tokens").fill("5")
    said = ask(part, "words")
    assert said.startswith("the cat ") and len(said.split()) == 7 and {*said.split()} <= {*WORDS}


@pytest.mark.parametrize("page", [{"width": 360, "height": 640}], indirect=True)
def test_on_a_phone(page):
    for details in page.locator("details").all():
        details.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_each_control_has_a_name(page):
    controls = page.locator("button, input, textarea, canvas")
    unnamed = [
        control.evaluate("(e) => e.outerHTML")
        for control in controls.all()
        if not control.evaluate(
            "(e) => e.labels?.length || e.textContent || e.getAttribute('aria-label')"
        )
    ]
    assert controls.count() > 40 and unnamed == []


def test_what_a_model_shares_stands_beside_it(page):
    words = section(page, "words")
    assert words.get_by_role("heading", name="What it shares").is_visible()
    [row] = words.get_by_role("row").filter(has_text="transposed").all()
    assert row.get_by_role("rowheader").text_content() == "table/embeddings"
