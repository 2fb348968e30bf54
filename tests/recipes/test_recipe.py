import datetime
import json
import pathlib
import re
import sys
import tomllib

import numpy as np
import pytest

from keras_shared.datasets import DataError
from keras_shared.errors import UsageError
from keras_shared.presets.names import entry_dir, entry_names
from keras_shared.recipes import RecipeError, read_recipe, recipe_from
from keras_shared.recipes.changes import changed, comparison_of
from keras_shared.recipes.recipe import json_schema
from keras_shared.recipes.schema import SHARED_OR_NOT, Arm

ROOT = pathlib.Path(__file__).parents[2]
LENET = """
name = "letters"
[model]
class_name = "LeNet5"
variant = "1998"
class_names = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
[data]
name = "mnist"
validation_images = 5000
distortion = [0.0, 0.0, 0.0, 0.0]
seed = 1
[training]
loss = "rbf"
optimizer = "adam"
learning_rate = 0.003
epochs = 40
seeds = [1, 2]
"""
PAIRS = """
name = "twins"
[model]
class_name = "SiameseNet"
image_shape = [105, 105, 3]
pixel_range = [1.0, 0.0]
[data]
name = "omniglot"
validation_groups = ["Greek"]
test_groups = ["Angelic"]
"""


@pytest.fixture
def written(tmp_path):
    def write(text, old="", new=""):
        assert old in text
        path = tmp_path / "recipe.toml"
        path.write_text(text.replace(old, new, 1))
        return path

    return write


@pytest.mark.parametrize("name", entry_names())
def test_every_entry_reads_and_is_named_after_its_folder(name):
    assert read_recipe(entry_dir(name) / "recipe.toml").name == name


@pytest.mark.parametrize(
    ("old", "new", "key", "received", "expected"),
    [
        ("epochs = 40", "epochs = 25\nepoch = 3", "training.epoch", "unknown key", "'epochs'"),
        ("epochs = 40", "epochs = 0", "training.epochs", "0", "at least 1"),
        ("epochs = 40", 'epochs = "20"', "training.epochs", "'20'", "a whole number"),
        ("epochs = 40", "epochs = true", "training.epochs", "True", "a whole number"),
        ("epochs = 40", "epochs = 1.5", "training.epochs", "1.5", "a whole number"),
        ("= 0.003", "= nan", "training.learning_rate", "nan", "a finite number"),
        ("= 0.003", "= inf", "training.learning_rate", "inf", "a finite number"),
        ("= 0.003", "= 11", "training.learning_rate", "11", "at most 10"),
        ('loss = "rbf"', 'loss = "mse"', "training.loss", "'mse'", "one of ['rbf'"),
        ('loss = "rbf"', 'loss = "contrastive"', "training.loss", "'contrastive'", "for LeNet5"),
        ('"1998"', '"1999"', "model.variant", "'1999'", "'1998' or 'modern'"),
        ('"LeNet5"', '"LeNet6"', "model.class_name", "'LeNet6'", "mean 'LeNet5'"),
        ('"LeNet5"', '"nothing:N"', "model.class_name", "'nothing:N'", "cannot be imported"),
        ('"LeNet5"', '["LeNet5"]', "model.class_name", "['LeNet5']", "a string"),
        ('"mnist"', '"mnst"', "data.name", "'mnst'", "Did you mean 'mnist'"),
        ('["0",', "[0,", "model.class_names[0]", "0", "a string"),
        ("[data]", "[date]", "date", "an unknown key", "mean 'data'"),
        ('"letters"', '"lenet 5"', "name", "'lenet 5'", "underscores"),
        ("seed = 1", "seed = -1", "data.seed", "-1", "at least 0"),
        ("[1, 2]", "[1, 1, 2]", "training.seeds", "[1, 1, 2]", "each one once"),
        ("[1, 2]", "[]", "training.seeds", "[]", "a list with at least 1 item"),
        ('"adam"', '"sgd"', "training.optimizer", "'sgd'", "'adam' or 'muon'"),
        ("0.0, 0.0]", "-1, 0.0]", "data.distortion[2]", "-1", "at least 0"),
    ],
)  # fmt: skip
def test_errors_name_file_key_received_and_expected(written, old, new, key, received, expected):
    path = written(LENET, old, new)
    with pytest.raises(RecipeError) as error:
        read_recipe(path)
    for part in (str(path), f"`{key}`", received, expected):
        assert part in str(error.value)


def test_every_error_at_once(written):
    text = LENET.replace("epochs = 40", "epochs = 0\nepoch = 3").replace('"1998"', '"1999"')
    path = written(text.replace('"mnist"', '"mnst"').replace("seed = 1", "seed = true"))
    with pytest.raises(RecipeError) as error:
        read_recipe(path)
    first, *rest = str(error.value).splitlines()
    assert first == f"{path}: 5 errors"
    keys = {line.split("`")[1] for line in rest}
    assert keys == {"training.epochs", "training.epoch", "model.variant", "data.name", "data.seed"}


def test_pairs(written):
    for old, new, said in (
        ("[1.0, 0.0]", "[1.0]", r"`model.pixel_range\[1\]` is missing"),
        ("[105, 105, 3]", "[105, 0, 3]", r"`model.image_shape\[1\]`: received 0, expected more"),
        ("[105, 105, 3]", "[105, 105, 2]", r"image_shape\[2\]`: received 2, expected 1 or 3"),
        ('"Angelic"', '"Greek"', r"`data`: \['Greek'\] cannot be both"),
        ("test_groups", "test_group", "`data.test_group` is an unknown key of data. Did you mean"),
    ):
        with pytest.raises(RecipeError, match=said):
            read_recipe(written(PAIRS, old, new))
    with pytest.raises(RecipeError, match=r"'shared' with loss = 'contrastive'"):
        text = PAIRS + '[training]\nloss = "contrastive"\nsharing = "unshared"'
        read_recipe(written(text))


def test_own_data_are_found_here_or_beside_the_recipe(tmp_path, monkeypatch):
    table = tomllib.loads(LENET)
    table["data"] = {"name": "arrays", "path": "mine.npz"}
    table["model"]["variant"] = "modern"
    for number, name in enumerate(("there", "here")):
        (tmp_path / name).mkdir()
        x = np.random.default_rng(0).integers(0, 256, (30, 28, 28), "uint8")
        np.savez(tmp_path / name / "mine.npz", x=x + number, y=np.arange(30) % 10)
    recipe_from(table).write(tmp_path / "there" / "letters.toml")
    monkeypatch.chdir(tmp_path / "there")
    wanted = [read_recipe("letters.toml").dataset.load("train", None).images]
    monkeypatch.chdir(tmp_path / "here")
    wanted.append(recipe_from(table).dataset.load("train", None).images)
    read = read_recipe("../there/letters.toml")
    assert read.data.path == "mine.npz"  # as it stands, so that a moved folder is the same recipe
    np.testing.assert_array_equal(read.dataset.load("train", None).images, wanted[1])
    (tmp_path / "here" / "mine.npz").unlink()
    np.testing.assert_array_equal(read.dataset.load("train", None).images, wanted[0])
    assert not np.array_equal(*wanted)
    (tmp_path / "there" / "mine.npz").unlink()
    with pytest.raises(DataError, match=f"There is no file {tmp_path}/here/mine.npz"):
        read.dataset.load("train", None)


def test_no_toml(tmp_path, written):
    with pytest.raises(RecipeError, match="There is no file .*missing.toml"):
        read_recipe(tmp_path / "missing.toml")
    with pytest.raises(RecipeError, match="cannot be read as TOML"):
        read_recipe(written("name = "))
    with pytest.raises(RecipeError, match="`model`: received 1, expected a table"):
        read_recipe(written('name = "x"\nmodel = 1\ndata = 2\ntraining = 3'))
    with pytest.raises(RecipeError, match="`model.class_name` is missing"):
        read_recipe(written('name = "x"\n[model]\n[data]\nname = "mnist"'))


def test_what_is_left_out_has_a_default(written):
    recipe = read_recipe(
        written('name = "x"\n[model]\nclass_name = "LeNet5"\n[data]\nname = "mnist"')
    )
    assert recipe.training.loss == "rbf" and recipe.training.learning_rate == 0.001
    for changed_recipe in (recipe, recipe.with_seed(3)):  # defaults follow what is changed
        modern = changed_recipe.with_changes({"model.variant": "modern"})
        assert modern.training.loss == "sparse_categorical_crossentropy"
        assert modern.training.seeds == changed_recipe.training.seeds
    assert recipe.model.variant == "1998" and recipe.data.images_per_class == 0


@pytest.mark.parametrize("name", entry_names())
def test_a_written_recipe_reads_alike(name, tmp_path):
    recipe = read_recipe(entry_dir(name) / "recipe.toml")
    recipe = recipe.with_changes({"training.epochs": 3}).with_seed(7)
    recipe.write(tmp_path / "recipe.toml")
    again = read_recipe(tmp_path / "recipe.toml")
    assert again == recipe and again.comparison == recipe.comparison
    assert recipe.training.epochs == 3 and recipe.training.seeds == (7,)


def test_changes_are_checked_like_the_file(written):
    recipe = read_recipe(written(LENET))
    for changes, said in (
        ({"training.epochs": 0}, "`training.epochs`: received 0, expected at least 1"),
        ({"training.epoch": 1}, "`training.epoch` is an unknown key of training. Did you mean"),
        ({"trainin.epochs": 1}, "`trainin.epochs` is no key of a recipe: expected SECTION.KEY"),
    ):
        with pytest.raises(RecipeError, match=said):
            recipe.with_changes(changes)


def test_set(written):
    recipe = read_recipe(written(LENET))
    settings = ["training.epochs=5", "model.variant=modern", "training.seeds=[3]",
                "training.loss=sparse_categorical_crossentropy", "name=mine"]  # fmt: skip
    told = changed(recipe, settings)
    assert told.training.epochs == 5 and told.training.seeds == (3,)
    assert told.model.variant == "modern" and told.name == "mine"
    for quoted in ('paper="A, 1999"', "paper='A, 1999'", "paper=A, 1999"):
        assert changed(recipe, [quoted]).paper == "A, 1999"
    for quoted in ('model.variant="modern"', "model.variant='modern'"):
        assert changed(recipe, [quoted]).model.variant == "modern"
    for vary in (
        "model.variant='1998','modern'", 'model.variant="1998", "modern"',
        'model.variant=1998,"modern"', "model.variant='1998',modern",
    ):  # fmt: skip
        arms = comparison_of(recipe, vary=vary).arms
        assert [arm.changes for arm in arms] == [
            {"model.variant": "1998"}, {"model.variant": "modern"},
        ]  # fmt: skip
    for setting, said in (
        ("training.epochs", "KEY=VALUE, such as training.epochs=5. Received: 'training.epochs'"),
        ("training.epochs=many", "received 'many', expected a whole number"),
        ("model.variant=1999", "received '1999', expected '1998' or 'modern'"),
        ("training.seeds=3", r"received 3, expected a list in brackets, such as \[1, 2\]"),
    ):
        with pytest.raises((RecipeError, UsageError), match=said):
            changed(recipe, [setting])


@pytest.mark.parametrize("name", entry_names())
def test_every_entry_is_of_its_schema(name):
    from jsonschema import Draft202012Validator

    file = entry_dir(name) / "recipe.toml"
    schema = json.loads(json.dumps(json_schema(read_recipe(file))))
    Draft202012Validator(schema).validate(tomllib.loads(file.read_text()))


def test_schema(written):
    """What the JSON schema lets pass, and what not, is what reading does."""
    from jsonschema import Draft202012Validator

    recipe = read_recipe(written(LENET))
    schema = json.loads(json.dumps(json_schema(recipe)))
    validator = Draft202012Validator(schema)
    assert validator.is_valid(tomllib.loads(LENET))
    for old, new in (("epochs = 40", "epoch = 40"), ('"1998"', '"1999"'), ("= 5000", "= -1")):
        assert not validator.is_valid(tomllib.loads(LENET.replace(old, new)))


COMPARISON = """
[comparison]
seeds = [1, 2]
images_per_class = [10, 100]
[[comparison.arms]]
name = "small"
"training.epochs" = 1
[[comparison.arms]]
name = "tuned"
start = "lenet5_mnist"
paper = "1 %"
"""


def test_comparison(written):
    recipe = read_recipe(written(LENET))
    assert recipe.comparison is None and comparison_of(recipe).arms == SHARED_OR_NOT
    kept = read_recipe(written(LENET + COMPARISON)).comparison
    assert kept.arms == (
        Arm(name="small", changes={"training.epochs": 1}),
        Arm(name="tuned", start="lenet5_mnist", paper="1 %"),
    )
    asked = comparison_of(
        read_recipe(written(LENET + COMPARISON)), 3, "model.variant=1998,modern", "7,3"
    )
    assert asked.seeds == (1, 2, 3) and asked.images_per_class == (3, 7)
    assert [arm.changes for arm in asked.arms] == [
        {"model.variant": "1998"},
        {"model.variant": "modern"},
    ]
    lists = comparison_of(recipe, vary="data.distortion=[0,0,0,0],[1,0,0,0]")
    assert lists.arms[1].changes == {"data.distortion": [1, 0, 0, 0]}
    for words, said in (
        ({"seeds": 0}, "--seeds: received 0, expected 1 to 1000"),
        ({"vary": "model.variant=modern"}, "expected KEY=A,B with at least two values"),
        ({"vary": "training.epochs=1,1"}, "each once"),
        ({"sizes": "10,x"}, "expected whole numbers"),
    ):
        with pytest.raises(UsageError, match=said):
            comparison_of(recipe, **words)
    with pytest.raises(RecipeError, match=r"arms\[0\].name`: received 3, expected a string"):
        read_recipe(written(LENET + COMPARISON, 'name = "small"', "name = 3"))
    with pytest.raises(RecipeError, match="`comparison.arms`: .*each one once"):
        read_recipe(written(LENET + COMPARISON, '"tuned"', '"small"'))


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("studies/*/recipe.toml")), ids=lambda p: p.parent.name
)
def test_studies_read(path):
    recipe = read_recipe(path)
    assert recipe.comparison is not None
    assert recipe_from(recipe.to_dict()).comparison == recipe.comparison


def test_what_holds_none_is_left_out(written, tmp_path):
    """TOML has no null: a SiameseNet of images of any size is written and read again."""
    recipe = read_recipe(written(PAIRS, "image_shape = [105, 105, 3]\n"))
    recipe.write(tmp_path / "again.toml")
    assert read_recipe(tmp_path / "again.toml") == recipe


def test_a_list_of_an_own_model(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text("""
import keras
class Net(keras.Model):
    task = "classification"
    def __init__(self, units: list[int] = [4, 2], other: list[int] | None = None): ...
""")
    monkeypatch.syspath_prepend(tmp_path)
    table = {"name": "own", "model": {"class_name": "own_net:Net"}, "data": {"name": "digits"}}
    recipe = recipe_from(table)
    assert recipe.model.units == (4, 2) and recipe_from(recipe.to_dict()) == recipe
    assert recipe.with_changes({"model.units": [3]}).model.units == (3,)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("units=8", 4),
        ("rate=0.5", 0.25),
        ("rate=0.5", 1),
        ("rate=0", 0.5),
        ("units=(4, 2)", (3,)),
        ("units=[4, 2]", (3, (1, 2))),
        ("units=None", (3, "a")),
        ("units=None", 4),
        ("units", {"first": 4}),
        ("units: list = None", (3,)),
        ("units: typing.List = None", (3,)),
        ("units: tuple | None = None", (3,)),
        ("units: dict = None", {"first": (4, 5)}),
        ("units: dict[str, int] = None", {"first": 4}),
        ("*, units=True", False),
    ],
)
def test_an_argument_of_an_own_model_without_a_type(tmp_path, monkeypatch, argument, value):
    (tmp_path / "untyped_net.py").write_text(f"""
import keras, typing
class Net(keras.Model):
    task = "classification"
    def __init__(self, {argument}, layer=keras.layers.Layer, **kwargs): ...
""")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "untyped_net", raising=False)
    name = re.search(r"\w+", argument)[0]
    table = {"name": "own", "data": {"name": "digits"}}
    recipe = recipe_from(table | {"model": {"class_name": "untyped_net:Net", name: value}})
    assert getattr(recipe.model, name) == value
    recipe.write(tmp_path / "again.toml")
    assert read_recipe(tmp_path / "again.toml").model == recipe.model
    with pytest.raises(RecipeError, match="`model.layer` is an unknown key"):
        recipe_from(table | {"model": {"class_name": "untyped_net:Net", name: value, "layer": 1}})
    wrong = "wide" if "=8" in argument or "rate" in argument else datetime.date(2026, 1, 1)
    with pytest.raises(RecipeError, match=f"`model.{name}.*: received"):
        recipe_from(table | {"model": {"class_name": "untyped_net:Net", name: wrong}})


MODEL = r"expected a class derived from keras\.Model"


@pytest.mark.parametrize(
    ("section", "found", "said"),
    [
        ("data", "def NAME(split, data_dir=None): ...", "is a function; expected a Dataset"),
        ("data", "NAME = ('a', 'tuple')", "is an object of tuple; expected a Dataset"),
        ("data", "class NAME: ...", "is the class 'NAME'; expected a Dataset"),
        ("model", "def NAME(width=4): ...", f"is a function; {MODEL}"),
        ("model", "NAME = keras.Sequential()", f"is an object of Sequential; {MODEL}"),
        ("model", "class NAME: ...", f"is the class 'NAME'; {MODEL}"),
        ("model", "NAME = keras.Sequential", "Sequential has no .task..*classification.*None"),
        ("model", "class NAME(keras.Model): task = keras", "NAME has no .task..*Received: <mod"),
        ("model", "class NAME(keras.Model): task = 'json:loads'", "is a function; expected a Task"),
    ],
)
def test_a_name_of_another_kind_of_thing(tmp_path, monkeypatch, section, found, said):
    (tmp_path / "own_thing.py").write_text(f"import keras\n{found}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_thing", raising=False)
    key = {"data": "name", "model": "class_name"}[section]
    table = {"name": "own", "model": {"class_name": "LeNet5"}, "data": {"name": "digits"}}
    table[section] = {key: "own_thing:NAME"}
    with pytest.raises(RecipeError, match=f"`{section}.{key}`: .*{said}"):
        recipe_from(table)


def test_the_class_is_changed_first(written):
    changes = {"model.net": 3, "model.class_name": "LeCun1989", "training.loss": None}
    assert read_recipe(written(LENET)).with_changes(changes).model.net == 3


def test_keys_of_sections_within_sections_are_suggested(written):
    for old, said in (("seeds", "sedes"), ("name", "nam")):
        path = written(LENET + COMPARISON.replace(old, said))
        with pytest.raises(RecipeError, match=rf"{said}` is an unknown key .*mean '{old}'"):
            read_recipe(path)
    changed_recipe = changed(read_recipe(written(LENET)), ["comparison.seeds=[7]"])
    assert changed_recipe.comparison.seeds == (7,)
