import pytest

from keras_shared.presets.names import entry_dir, entry_names
from keras_shared.recipe import (
    SHARED_OR_NOT,
    Arm,
    RecipeError,
    comparison_of,
    read_recipe,
    write_recipe,
)


@pytest.fixture
def edited(tmp_path):
    def edit(name, old, new):
        text = (entry_dir(name) / "recipe.toml").read_text()
        assert old in text
        path = tmp_path / "recipe.toml"
        path.write_text(text.replace(old, new, 1))
        return path

    return edit


@pytest.mark.parametrize("name", entry_names())
def test_every_entry_reads_and_is_named_after_its_folder(name):
    assert read_recipe(entry_dir(name) / "recipe.toml").name == name


@pytest.mark.parametrize(
    ("old", "new", "key", "received", "allowed"),
    [
        ("epochs = 40", "epochs = 25\nepoch = 3", "training.epoch", "an unknown key", "'epochs'"),
        ("epochs = 40", "epochs = 0", "training.epochs", "0", "at least 1"),
        ("epochs = 40", 'epochs = "20"', "training.epochs", "'20'", "a whole number"),
        ("epochs = 40", "epochs = true", "training.epochs", "True", "a whole number"),
        ("epochs = 40", "epochs = 1.5", "training.epochs", "1.5", "a whole number"),
        ('loss = "rbf"', 'loss = "mse"', "training.loss", "'mse'", "one of"),
        ('loss = "rbf"', 'loss = "contrastive"', "training.loss", "'contrastive'", "for LeNet5"),
        ('loss = "rbf"', "", "training.loss", "nothing", "recipes are complete"),
        ('"1998"', '"1999"', "model.variant", "'1999'", "one of ['1998', 'modern']"),
        ('"LeNet5"', '"LeNet6"', "model.class_name", "'LeNet6'", "'SiameseNet'"),
        ('"mnist"', '"omniglot"', "data.name", "'omniglot'", "'digits'"),
        ('["0",', "[0,", "model.class_names[0]", "0", "a string"),
        ("[data]", "[date]", "date", "an unknown key", "'data'"),
        ('"lenet5_mnist"', '"lenet 5"', "name", "lenet 5", "underscores"),
        ("seed = 1", "seed = -1", "data.seed", "-1", "at least 0"),
        ("seeds = [1, 2", "seeds = [1, 1, 2", "training.seeds", "[1, 1, 2, 3", "each seed once"),
        ("seeds = [1, 2, 3, 4, 5]", "seeds = []", "training.seeds", "[]", "a list that is not"),
        ('"adam"', '"sgd"', "training.optimizer", "'sgd'", "one of ['adam']"),
        ("[0.0, 0.0, 0.0, 0.0]", "[0.0, 0.0, -1, 0.0]", "data.distortion[2]", "-1", "at least 0"),
        ('"LeNet5"', '["LeNet5"]', "model.class_name", "['LeNet5']", "a string"),
    ],
)  # fmt: skip
def test_errors_name_file_key_received_and_allowed(edited, old, new, key, received, allowed):
    path = edited("lenet5_mnist", old, new)
    with pytest.raises(RecipeError) as error:
        read_recipe(path)
    for part in (str(path), f"`{key}`", received, allowed):
        assert part in str(error.value)


def test_numbers(edited):
    assert read_recipe(edited("lenet5_mnist", "learning_rate = 0.003", "learning_rate = 1"))
    for value, allowed in (("nan", "finite"), ("inf", "finite"), ("11", "at most 10")):
        path = edited("lenet5_mnist", "learning_rate = 0.003", f"learning_rate = {value}")
        with pytest.raises(RecipeError, match=allowed):
            read_recipe(path)
    with pytest.raises(RecipeError, match="a list of 2"):
        read_recipe(edited("siamese_omniglot", "[1.0, 0.0]", "[1.0]"))
    with pytest.raises(RecipeError, match=r"image_shape\[2\]`: received 3.0, allowed: one of"):
        read_recipe(edited("siamese_omniglot", "[105, 105, 3]", "[105, 105, 3.0]"))
    with pytest.raises(RecipeError, match=r"test_groups`: received \['Greek'\], allowed: groups"):
        read_recipe(edited("siamese_omniglot", '"Angelic"', '"Greek"'))
    with pytest.raises(RecipeError, match="not empty"):
        read_recipe(edited("tied_autoencoder_mnist", "[1000, 500, 250, 30]", "[]"))
    with pytest.raises(RecipeError, match=r"units\[1\]`: received 0, allowed: at least 1"):
        read_recipe(edited("tied_autoencoder_mnist", "1000, 500,", "1000, 0,"))


def test_no_toml(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read as TOML"):
        read_recipe(tmp_path / "missing.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(RecipeError, match="cannot be read as TOML"):
        read_recipe(tmp_path / "bad.toml")
    (tmp_path / "flat.toml").write_text('name = "x"\npaper = ""\nmodel = 1\ndata = 2\ntraining = 3')
    with pytest.raises(RecipeError, match="`model`: received 1, allowed: a table"):
        read_recipe(tmp_path / "flat.toml")


@pytest.mark.parametrize("name", entry_names())
def test_a_written_recipe_reads_alike(name, tmp_path):
    recipe = read_recipe(entry_dir(name) / "recipe.toml", {"training.epochs": 3}).with_seed(7)
    write_recipe(recipe, tmp_path / "recipe.toml")
    assert read_recipe(tmp_path / "recipe.toml") == recipe
    assert recipe.training.epochs == 3 and recipe.training.seeds == (7,)


def test_changes_are_checked_like_the_file():
    path = entry_dir("lenet5_mnist") / "recipe.toml"
    for changes, said in (
        ({"training.epochs": 0}, "`training.epochs`: received 0, allowed: at least 1"),
        ({"training.epoch": 1}, "`training.epoch`: received a change of it, allowed: a key of the"),
        ({"epochs": 1}, "`epochs`: received a change of it"),
    ):
        with pytest.raises(RecipeError, match=said):
            read_recipe(path, changes)


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


def test_comparison(edited):
    path = edited("lenet5_mnist", "batch_size = 64", "batch_size = 32")
    recipe = read_recipe(path)
    assert recipe.comparison is None and comparison_of(recipe).arms == SHARED_OR_NOT
    path.write_text(path.read_text() + COMPARISON)
    kept = read_recipe(path).comparison
    assert kept.arms == (
        Arm("small", {"training.epochs": 1}),
        Arm("tuned", {}, "lenet5_mnist", "1 %"),
    )
    told = comparison_of(read_recipe(path), 3, "model.variant=1998,modern", "7,3")
    assert told.seeds == (1, 2, 3) and told.images_per_class == (3, 7)
    assert [arm.changes for arm in told.arms] == [
        {"model.variant": "1998"},
        {"model.variant": "modern"},
    ]
    lists = comparison_of(recipe, vary="data.distortion=[0,0,0,0],[1,0,0,0]")
    assert lists.arms[1].changes == {"data.distortion": [1, 0, 0, 0]}
    for told, said in (
        ({"seeds": 0}, "`--seeds`: received 0, allowed: at least 1"),
        ({"vary": "model.variant=modern"}, "allowed: KEY=A,B with at least two values"),
        ({"sizes": "10,x"}, "allowed: whole numbers"),
    ):
        with pytest.raises(RecipeError, match=said):
            comparison_of(recipe, **told)
    path.write_text(path.read_text().replace('name = "small"', "name = 3"))
    with pytest.raises(RecipeError, match=r"arms\[0\].name`: received 3, allowed: a str"):
        read_recipe(path)
