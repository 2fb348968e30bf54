import multiprocessing
import os
import signal

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import fuzzed, mutated

import keras_shared
from keras_shared.gallery import Gallery, GalleryError, Identity
from keras_shared.gallery.gallery import fingerprint
from keras_shared.zoo import SiameseNet


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)  # another than that of each test, whose nets are others
    return SiameseNet()


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (6, 28, 28, 1))


def filled(model, images):
    gallery = Gallery(model)
    for i, name in enumerate(["anna", "ben", "anna", "Ève", "ben"]):
        gallery.enrol(name, images[i : i + 1])
    return gallery


def test_the_probability_is_that_of_the_model(model, images):
    gallery = filled(model, images)
    queries = np.concatenate([images[5:], images[3:4]])
    # sqrt(2 - 2 cos) of float32 is right to 1e-3 where the distance is 0
    of_pairs = np.stack([model.verify(q[None].repeat(5, 0), images[:5]) for q in queries])
    best = {"anna": of_pairs[:, [0, 2]].max(1), "ben": of_pairs[:, [1, 4]].max(1),
            "Ève": of_pairs[:, 3]}  # fmt: skip
    for name, expected in best.items():
        np.testing.assert_allclose(gallery.verify(queries, name), expected, atol=1e-4)
    for row, identity in enumerate(gallery.identify(queries, k=5)):
        names = sorted(best, key=lambda name: -best[name][row])
        assert [match.name for match in identity.matches] == names
        np.testing.assert_allclose(
            [m.probability for m in identity.matches], [best[n][row] for n in names], atol=1e-4
        )
    assert gallery.identify(queries[1:], k=1)[0].name == "Ève"


def test_below_the_threshold_nobody_is_known(model, images):
    gallery = filled(model, images)
    [identity] = gallery.identify(images[5:])
    gallery.threshold = np.nextafter(identity.matches[0].probability, 2)
    assert gallery.identify(images[5:]) == [Identity("unknown", identity.matches)]
    gallery.threshold = identity.matches[0].probability
    assert gallery.identify(images[5:])[0].name == identity.matches[0].name


def test_each_image_is_embedded_once(model, images, monkeypatch):
    gallery, embedded = filled(model, images), []
    embed = model.embed
    monkeypatch.setattr(model, "embed", lambda x: embedded.append(len(x)) or embed(x))
    gallery.identify(images[4:], k=2)
    gallery.verify(images[:3], "ben")
    assert embedded == [2, 3]


def test_mean_keeps_one_unit_vector(model, images):
    gallery = Gallery(model)
    gallery.enrol("anna", images[:3], keep="mean")
    assert len(gallery) == 1
    middle = model.embed(images[:3]).mean(axis=0)
    middle /= np.linalg.norm(middle)
    w, v = (float(x.item()) for x in model.probability.get_weights())
    apart = np.linalg.norm(model.embed(images[4:5])[0] - middle)
    expected = 1 / (1 + np.exp(-(w * apart + v)))
    np.testing.assert_allclose(gallery.verify(images[4:5], "anna"), [expected], rtol=1e-4)


def test_remove_and_merge(model, images):
    one, two = filled(model, images), Gallery(model)
    two.enrol("ben", images[5:])
    two.enrol("zoë", images[:1])
    one.remove("anna")
    one.merge(two)
    assert one.names == ("ben", "Ève", "zoë")
    assert len(one) == 5
    assert one.identify(images[5:])[0].name == "ben"
    assert two.names == ("ben", "zoë")
    with pytest.raises(GalleryError, match="Nothing is enrolled under 'anna'"):
        one.verify(images, "anna")
    with pytest.raises(GalleryError, match="of another model"):
        one.merge(Gallery(SiameseNet()))
    for other, said in ((one, "Received: this gallery itself"), ("b.npz", "Received: str.*load")):
        with pytest.raises(GalleryError, match=said):
            one.merge(other)
    assert len(one) == 5


def test_a_file_brings_back_all(model, images, tmp_path):
    gallery = filled(model, images)
    gallery.threshold = 0.75
    gallery.save(tmp_path / "people.npz")
    again = Gallery.load(tmp_path / "people.npz", model)
    assert (again.names, len(again), again.threshold) == (gallery.names, 5, 0.75)
    assert again.identify(images, k=3) == gallery.identify(images, k=3)
    again.enrol("anna", images[5:])
    assert len(again) == 6
    with pytest.raises(GalleryError, match="holds embeddings of another model"):
        Gallery.load(tmp_path / "people.npz", SiameseNet())
    empty = Gallery(model)
    empty.save(tmp_path / "empty.npz")
    assert Gallery.load(tmp_path / "empty.npz", model).names == ()


def test_calibration_changes_no_embedding(model, images, tmp_path):
    gallery = filled(model, images)
    gallery.save(tmp_path / "people.npz")
    other = SiameseNet.from_config(model.get_config())
    other.set_weights(model.get_weights())
    other.calibrate([0.1, 0.4, 0.6, 0.9], [1, 1, 0, 0])
    assert fingerprint(other) == fingerprint(model)
    again = Gallery.load(tmp_path / "people.npz", other)
    assert again.verify(images[:1], "anna") != gallery.verify(images[:1], "anna")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g, x: g.enrol("", x), "neither empty nor"),
        (lambda g, x: g.enrol("unknown", x), "neither empty nor"),
        (lambda g, x: g.enrol(3, x), "Received: 3"),
        (lambda g, x: g.enrol("a", x, keep="best"), "'all' or 'mean'"),
        (lambda g, x: g.identify(x, k=0), "from 1. Received: 0"),
        (lambda g, x: g.identify(x, k=1.5), "Received: 1.5"),
        (lambda g, x: g.identify(x), "Nothing is enrolled"),
        (lambda g, x: g.verify(x, "an"), "Nothing is enrolled under 'an'"),
        (lambda g, x: Gallery(g.model, threshold=2), "0 to 1. Received: 2"),
        (lambda g, x: Gallery(g.model, threshold=float("nan")), "Received: nan"),
        (lambda g, x: Gallery(object()), "Received: object"),
    ],
)
def test_wrong_calls(model, images, call, words):
    with pytest.raises(GalleryError, match=words):
        call(Gallery(model), images)


def test_other_pixels_are_another_model(model, images, tmp_path):
    filled(model, images).save(tmp_path / "a.npz")
    inverted = SiameseNet.from_config(model.get_config() | {"pixel_range": (1.0, 0.0)})
    inverted.set_weights(model.get_weights())
    with pytest.raises(GalleryError, match="another model"):
        Gallery.load(tmp_path / "a.npz", inverted)


def test_half_precision_is_saved_and_loaded(images, tmp_path):
    model = SiameseNet(dtype="mixed_bfloat16")
    gallery = filled(model, images)
    gallery.enrol("mean", images, keep="mean")
    gallery.save(tmp_path / "a.npz")
    assert len(Gallery.load(tmp_path / "a.npz", model)) == 6


class Broken:
    """Embeds as it is told."""

    probability = None
    embedder = keras.Sequential([])

    def __init__(self, rows):
        self.rows = rows

    def embed(self, images):
        return self.rows


@pytest.mark.parametrize("rows", [np.zeros((2, 3)), np.full((2, 3), np.nan)])
def test_nothing_is_like_zeros_or_nan(rows):
    gallery = Gallery(Broken(rows))
    with pytest.raises(GalleryError, match="zeros or NaN"):
        gallery.enrol("anna", None)
    assert gallery.names == ()


def test_opposite_images_have_no_mean():
    with pytest.raises(GalleryError, match="The mean of these images comes out as zeros"):
        Gallery(Broken(np.array([[1.0, 0], [-1, 0]]))).enrol("anna", None, keep="mean")


def test_a_wrong_image_enrols_nothing(model, images):
    gallery = Gallery(model)
    with pytest.raises(ValueError, match="batch axis"):
        gallery.enrol("anna", images[0])
    assert gallery.names == ()


@pytest.fixture(scope="module")
def kept(model, tmp_path_factory):
    gallery = Gallery(model)
    gallery.enrol("anna", np.random.default_rng(1).integers(0, 256, (3, 28, 28, 1)))
    path = tmp_path_factory.mktemp("gallery") / "people.npz"
    gallery.save(path)
    return path


@fuzzed
@given(st.data())
def test_a_damaged_file_is_refused_or_the_same(model, kept, tmp_path_factory, data):
    content = data.draw(mutated(kept.read_bytes()))
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(content)
    whole = Gallery.load(kept, model)
    try:
        gallery = Gallery.load(path, model)
    except keras_shared.KerasSharedError:
        return
    assert gallery.names == whole.names
    np.testing.assert_array_equal(gallery._rows()[0], whole._rows()[0])


@pytest.mark.slow
def test_a_full_disk_leaves_the_former_file(model, images, tmp_path):
    """A file may grow to a limit here: as on a full disk, the write fails in its middle."""
    gallery = filled(model, images)
    gallery.save(tmp_path / "people.npz")
    before = (tmp_path / "people.npz").read_bytes()
    gallery.enrol("zoë", images)

    def child():
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            gallery.save(tmp_path / "people.npz")
        except OSError:
            os._exit(7)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 7
    assert (tmp_path / "people.npz").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["people.npz"]


def test_a_model_that_was_trained_since_is_refused(images, tmp_path):
    model = SiameseNet()
    gallery = filled(model, images)
    gallery.threshold = np.float32(0.5)
    before = model.embedder.get_weights()
    model.embedder.set_weights([weight * 0.9 for weight in before])
    for ask in (
        lambda: gallery.identify(images),
        lambda: gallery.verify(images, "anna"),
        lambda: gallery.enrol("cleo", images[:1]),
        lambda: Gallery(model).merge(gallery),
    ):
        with pytest.raises(GalleryError, match="changed since"):
            ask()
    gallery.save(tmp_path / "g.npz")
    with pytest.raises(GalleryError, match="another model"):
        Gallery.load(tmp_path / "g.npz", model)
    again = Gallery(model)  # as the message says
    again.enrol("anna", images[:1])
    assert again.identify(images[:1])[0].name == "anna"
    model.embedder.set_weights(before)
    assert Gallery.load(tmp_path / "g.npz", model).identify(images[:1])[0].name == "anna"


@pytest.mark.parametrize("threshold", [90, -0.1, "0.5", None, float("nan")])
def test_thresholds_that_are_no_probabilities(threshold):
    model = SiameseNet()
    with pytest.raises(GalleryError, match="a probability, 0 to 1. Received"):
        Gallery(model, threshold)
    gallery = Gallery(model)
    with pytest.raises(GalleryError, match="a probability, 0 to 1. Received"):
        gallery.threshold = threshold
    assert gallery.threshold == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("how", ["int8", "lora"])
def test_a_quantised_or_adapted_model_identifies(images, how):
    model = SiameseNet()
    if how == "int8":
        model.quantize("int8")
    else:
        model.probability.enable_lora(1)
        model.probability.lora_kernel_b.assign([[0.5]])
    gallery = filled(model, images)
    [found] = gallery.identify(images[1:2])
    assert found.name == "ben"
    expected = model.verify(images[5:], images[1:2])
    np.testing.assert_allclose(gallery.verify(images[5:], "ben")[0] >= expected[0] - 0.02, True)
    distances, same = [0.1, 0.2, 0.6, 0.7, 0.8, 0.9], [1, 1, 0, 0, 0, 0]
    assert 0 < model.threshold(distances, same, false_accept_rate=0.25) < 1
    with pytest.raises(ValueError, match="quantised or has LoRA.*Calibrate the model before"):
        model.calibrate(distances, same)
