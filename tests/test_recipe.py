import pytest

from keras_shared.entries import entry_dir, entry_names
from keras_shared.recipe import RecipeError, read_recipe


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
        ("epochs = 20", "epochs = 20\nepoch = 3", "training.epoch", "an unknown key", "'epochs'"),
        ("epochs = 20", "epochs = 0", "training.epochs", "0", "at least 1"),
        ("epochs = 20", 'epochs = "20"', "training.epochs", "'20'", "a whole number"),
        ("epochs = 20", "epochs = true", "training.epochs", "True", "a whole number"),
        ("epochs = 20", "epochs = 1.5", "training.epochs", "1.5", "a whole number"),
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
        ("seeds = [1]", "seeds = [1, 1]", "training.seeds", "[1, 1]", "each seed once"),
        ("seeds = [1]", "seeds = []", "training.seeds", "[]", "a list that is not empty"),
        ('"adam"', '"sgd"', "training.optimizer", "'sgd'", "one of ['adam', 'muon']"),
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
    assert read_recipe(edited("lenet5_mnist", "learning_rate = 0.001", "learning_rate = 1"))
    for value, allowed in (("nan", "finite"), ("inf", "finite"), ("11", "at most 10")):
        path = edited("lenet5_mnist", "learning_rate = 0.001", f"learning_rate = {value}")
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
