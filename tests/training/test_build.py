"""What is wrong with one's own data, loss and model is said before anything is trained."""

import sys
import types
import warnings

import keras
import numpy as np
import pytest

from keras_shared.datasets import DataError, Dataset, LabelledImages, SeveralLabels
from keras_shared.datasets.lazy_images import LazyImages
from keras_shared.recipes import RecipeError, recipe_from
from keras_shared.training import Run, RunError, build_model, start_model, train, training_data
from keras_shared.training.build import (
    check_data,
    compile_model,
    load_split,
    loss_of,
    test_data,
    with_arguments_from,
)
from keras_shared.zoo import ImageClassifier

NAMES = ("ant", "bee", "cat")
LABELS = np.arange(180) % 3
IMAGES = np.random.default_rng(0).integers(0, 256, (180, 28, 28, 1), "uint8")
SPLIT = LabelledImages(IMAGES, LABELS, np.arange(3), NAMES, NAMES)
LENET5 = {"class_name": "LeNet5", "variant": "modern"}


@keras.saving.register_keras_serializable("mine")
class Net(ImageClassifier):
    """A model of one's own that says nothing of its images."""

    task = "classification"
    class_names = NAMES

    def __init__(self, dtype=None, **kwargs):
        image = keras.Input((28, 28, 1), name="image")
        x = keras.layers.Flatten(name="flat")(keras.layers.Rescaling(1 / 255)(image))
        super().__init__(image, keras.layers.Dense(3, name="logits")(x), **kwargs)


@pytest.fixture
def own(monkeypatch):
    """A recipe on a data set of one's own, of splits that may be others than `SPLIT`."""
    module = types.ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)

    def make(train=SPLIT, test=None, model=LENET5, **training):
        splits = {"train": train, "test": train if test is None else test}
        module.DATA = Dataset("Mine", "", "", type(train), lambda split, data_dir: splits[split])
        table = {"name": "mine", "data": {"name": "mine:DATA"}, "training": training}
        return recipe_from({**table, "model": model})

    make.module = module
    return make


def check(recipe, start=None):
    data = training_data(recipe)
    recipe = with_arguments_from(recipe, data)
    check_data(start_model(recipe, start) if start else build_model(recipe), recipe, data)


@pytest.mark.parametrize("start", [None, "lenet5_modern_mnist"])
def test_names_of_classes_stand_in_the_order_of_the_data(own, start):
    kept = (NAMES, ("x", "y", "z"), ("ant", "bee", "a cat"))  # the same, all or some renamed
    for recipe in (own(), *(own(model={**LENET5, "class_names": list(n)}) for n in kept)):
        check(recipe, start)
    for names in (("cat", "bee", "ant"), ("ant", "dog", "bee")):
        with pytest.raises(RunError, match=r"\['ant', 'bee', 'cat'\], and .*Leave") as error:
            check(own(model={**LENET5, "class_names": list(names)}), start)
        assert str([*names]) in str(error.value) and "in the order of the data" in str(error.value)
    numbered = SPLIT._replace(class_names=("1", "2", "0"))
    with pytest.raises(RunError, match="Leave `model.class_names` and `model.num_classes` out"):
        check(own(numbered, model={**LENET5, "num_classes": 3}))
    check(own(numbered))  # as the message says


def test_names_of_a_model_that_has_them_by_itself(own):
    labels, names = np.arange(180) % 10, tuple("1234567890")
    split = LabelledImages(IMAGES[:, :16, :16], labels, np.arange(10), names, names)
    with pytest.raises(RunError, match="Number the classes of the data in that order"):
        check(own(split, model={"class_name": "LeCun1989"}))
    check(own(split._replace(class_names=tuple("0123456789")), model={"class_name": "LeCun1989"}))


def test_names_of_each_of_several_tasks(own):
    names = {"pet": NAMES, "size": ("small", "large")}
    split = SeveralLabels(IMAGES, np.stack([LABELS, LABELS % 2], 1), names)
    model = {"class_name": "MultiTaskNet", "width": 2, "image_shape": [28, 28, 1]}
    check(own(split, model=model))
    other = {"size": ["large", "small"], "pet": list(NAMES)}
    with pytest.raises(RunError, match=r"\['small', 'large'\] of 'size', .*\['large', 'small'\]"):
        check(own(split, model={**model, "class_names": other}))
    check(own(split, model={**model, "class_names": {**other, "size": ["S", "L"]}}))
    swapped = split._replace(class_names={**names, "size": ("large", "small")})
    trained = {**model, "class_names": {task: list(own) for task, own in names.items()}}
    with pytest.raises(DataError, match="'large', 'small'"):
        test_data(own(split, swapped, model=trained))
    turned = split._replace(labels=split.labels[:, ::-1], class_names=dict(reversed(names.items())))
    test_data(own(split, turned, model=trained))


def test_both_splits_number_the_classes_alike(own):
    trained = {**LENET5, "class_names": list(NAMES)}  # as the recipe of a run has them
    other = SPLIT._replace(class_names=NAMES[::-1])
    with pytest.raises(
        DataError, match=r"'cat'\] apart, and the test split .*Give both splits the"
    ):
        test_data(own(test=other, model=trained))
    test_data(own(other, other))
    some = SPLIT._replace(labels=LABELS % 2, class_names=NAMES[:2])  # one class is never tested
    test_data(own(test=some, model=trained))
    # of pairs, new classes test
    verify = {"class_name": "SiameseNet", "image_shape": [28, 28, 1]}
    test_data(own(test=other, model=verify))


SCALES = [
    (IMAGES / 255, r"float64 from 0 to 1. Use images \* 255"),
    (IMAGES / np.float32(127.5) - 1, r"float32 from -1 to 1. Use \(images \+ 1\) \* 127.5"),
    (IMAGES.astype("uint16") * 257, r"uint16 from 0 to 65535. Use images \* \(255 / 65535\)"),
    (np.where(IMAGES > 3, IMAGES, np.nan), "Replace what is no number"),
    (IMAGES > 99, r"bool from 0 to 1. Use images \* 255"),
]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        *[({"images": images}, said) for images, said in SCALES],
        ({"images": LazyImages(IMAGES / 255, (28, 28, 1))}, "float64 from 0 to 1"),
        ({"images": np.repeat(IMAGES, 4, -1)}, r"with 1 or 3 channels.*28, 28, 4\)"),
        ({"images": IMAGES.astype(str)}, "Received: images of <U"),
        ({"images": [IMAGES[0], *IMAGES[1:, 1:]]}, "cannot be read: ValueError"),
        ({"labels": LABELS + 0.4}, "labels of float64, such as 0.4"),
        ({"labels": np.array(NAMES)[LABELS]}, "<U3, such as 'ant'"),
        ({"labels": LABELS - 1}, "such as -1"),
        ({"labels": np.eye(3)[LABELS]}, r"one-hot take labels.argmax\(axis=1\)"),
        ({"labels": LABELS[1:]}, r"shape \(180,\). Received: labels \(179,\)"),
    ],
)
def test_images_and_labels_of_ones_own(own, changes, said):
    wrong = own(SPLIT._replace(**changes))
    with pytest.raises(DataError, match=said):
        training_data(wrong)
    with pytest.raises(DataError, match=said):
        test_data(own(test=SPLIT._replace(**changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"images": IMAGES[..., 0]},
        {"images": IMAGES.astype("float32") - np.float32(0.4) * (IMAGES > 0)},
        {"images": IMAGES.tolist(), "class_names": np.array(NAMES)},
        {"labels": LABELS.tolist()},
        {"labels": LABELS.astype("float32")},
        {"labels": LABELS[:, None].astype("uint8")},
    ],
)
def test_other_forms_of_the_same_images_and_labels(own, changes):
    recipe = own(SPLIT._replace(**changes))
    split = load_split(recipe, "train")
    np.testing.assert_array_equal(split.images, IMAGES)
    np.testing.assert_array_equal(split.labels, LABELS)
    assert split.images.dtype == "uint8" and split.class_names == NAMES


@pytest.mark.parametrize(
    ("given", "said"),
    [((IMAGES, LABELS), "tuple"), (None, "NoneType"), (SeveralLabels(*SPLIT[:3]), "SeveralLabels")],
)
def test_a_split_is_of_the_kind_that_its_data_set_names(own, given, said):
    recipe = own()
    own.module.DATA = own.module.DATA._replace(load=lambda split, data_dir: given)
    with pytest.raises(DataError, match=f"LabelledImages, and its `load` gave an object of {said}"):
        training_data(recipe)


def test_labels_of_several_tasks_are_checked_alike(own):
    labels, names = np.stack([LABELS, LABELS % 2], 1), {"pet": NAMES, "size": ("S", "L")}
    model = {"class_name": "MultiTaskNet", "width": 2, "image_shape": [28, 28, 1]}
    for wrong, said in ((labels + 0.4, "such as 0.4"), (LABELS, r"shape \(180, 2\).*\(180,\)")):
        with pytest.raises(DataError, match=said):
            load_split(own(SeveralLabels(IMAGES, wrong, names), model=model), "train")
    split = load_split(own(SeveralLabels(IMAGES, labels.tolist(), names), model=model), "train")
    np.testing.assert_array_equal(split.labels, labels)


def test_a_model_that_does_not_say_what_it_takes_takes_anything(own):
    """It may be made for vectors, or for other numbers than pixels."""
    own.module.Net = Net
    model = {"class_name": "mine:Net"}
    for numbers in (IMAGES[:, 0, :5, 0] / 255, IMAGES.repeat(4, -1) / 255, IMAGES):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            split = load_split(own(SPLIT._replace(images=numbers), model=model), "train")
        assert split.images is numbers
    for numbers, said in SCALES:
        with pytest.warns(UserWarning, match=f"{said}.*may ignore that"):
            split = load_split(own(SPLIT._replace(images=numbers), model=model), "train")
        assert split.images is numbers


class OwnLoss(keras.losses.Loss):
    def __init__(self, scale=0.5, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}

    def call(self, y_true, y_pred):
        return self.scale * own_loss(y_true, y_pred)


def own_loss(y_true, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)


class ScaledLoss(OwnLoss):
    def __init__(self, scale, **kwargs):
        super().__init__(scale, **kwargs)


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


LOSSES = {
    "class": (OwnLoss, 0.5), "object": (ScaledLoss(2.0), 2.0), "function": (own_loss, 1.0),
    "factory": (lambda scale=0.25: OwnLoss(scale), 0.25),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("form", LOSSES)
def test_a_loss_of_ones_own_is_a_class_an_object_or_a_function(own, tmp_path, form):
    own.module.Net, (own.module.loss, scale) = Net, LOSSES[form]
    recipe = own(model={"class_name": "mine:Net"}, loss="mine:loss", epochs=2)
    data = training_data(recipe)
    keras.utils.set_random_seed(1)
    model = build_model(recipe)
    compile_model(model, recipe, data.steps_per_epoch)
    found = model.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)["loss"]
    wanted = scale * float(np.mean(own_loss(LABELS, model.predict(IMAGES, verbose=0))))
    assert found == pytest.approx(wanted, rel=1e-4)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("keras_shared.training.fit.EpochSeeds", lambda seed: Stop())
        train(recipe, data, tmp_path, verbose=0)
    train(recipe, data, tmp_path, verbose=0)  # not registered, it is found again by its name
    assert Run(tmp_path).epochs_done() == 2


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (
            ("a", "tuple"),
            "'mine:loss' is an object of tuple; expected a class derived from keras.l",
        ),
        (keras.Model, "is the class 'Model'; expected"),
        (lambda y_true: y_true, r"is a function; .* function of \(y_true, y_pred\)"),
        (lambda: "mse", "is an object of str; expected"),
        (ScaledLoss, "cannot be made without arguments: .*'scale'.* Name an object in place"),
        (keras.metrics.Accuracy(), "is an object of Accuracy; expected"),
    ],
)
def test_what_is_no_loss(own, loss, said):
    own.module.loss = loss
    with pytest.raises(RecipeError, match=f"recipe.toml: `training.loss`: .*{said}"):
        loss_of(own(loss="mine:loss"))
    with pytest.raises(RecipeError, match=f"`training.loss`: .*{said}"):
        loss_of(own(model={"class_name": "SiameseNet"}, loss="mine:loss"))
    with pytest.raises(RecipeError, match="`training.loss`: .*cannot be imported"):
        loss_of(own(loss="mine:nothing"))


def test_the_class_of_a_model_is_registered_before_it_is_trained(own, tmp_path):
    class Derived(Net):
        pass

    own.module.Derived = Derived
    recipe = own(model={"class_name": "mine:Derived"}, epochs=1)
    data = training_data(recipe)
    said = r"'Derived' of \S*test_build is not registered .*\(\"my_package\"\) above the class"
    with pytest.raises(RunError, match=said):
        train(recipe, data, tmp_path / "run", verbose=0)
    with pytest.raises(RunError, match=said):
        train(recipe, data, tmp_path / "run", start=Derived(), verbose=0)

    @keras.saving.register_keras_serializable("my_package", name="Derived")
    class Another(Net):
        pass

    keras.saving.register_keras_serializable("my_package")(Derived)  # as the message says
    own.module.Another = Another
    with pytest.raises(RunError, match="'my_package>Derived', and so is another, of"):
        train(own(model={"class_name": "mine:Another"}), data, tmp_path / "run", verbose=0)
    train(recipe, data, tmp_path / "run", verbose=0)
    assert type(Run(tmp_path / "run").model()) is Derived
    unshared = recipe.with_changes({"training.sharing": "unshared"})  # of Keras' own class
    train(unshared, data, tmp_path / "unshared", verbose=0)
