"""A recipe of any content is read, or refused at once with the file and the key."""

import os
import time

import pytest
from hypothesis import given
from mutations import fuzzed, mutated

from keras_shared.errors import KerasSharedError, UsageError
from keras_shared.files.limits import MOST_RECIPE
from keras_shared.presets.names import entry_dir
from keras_shared.recipes import RecipeError, read_recipe
from keras_shared.recipes.changes import changed, comparison_of

WHOLE = (entry_dir("siamese_omniglot") / "recipe.toml").read_bytes()
SMALL = """
name = "small"
[model]
class_name = "SiameseNet"
[data]
name = "digits"
"""


@pytest.fixture
def refused(tmp_path):
    """The message of a recipe with this content, which comes within a second."""

    def read(content):
        path = tmp_path / "recipe.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        begin = time.process_time()  # others may use the processors too
        with pytest.raises(RecipeError) as caught:
            read_recipe(path)
        assert time.process_time() - begin < 3
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 6000 and str(caught.value).count("\n") <= 20
        return str(caught.value)

    read_recipe(entry_dir("siamese_omniglot") / "recipe.toml")  # what is imported at first
    return read


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "3 errors"),
        (b"\0" * 100, "NUL bytes"),
        (b"\xff\xfe", "no text in UTF-8"),
        ("a = " + "[" * 100_000, "cannot be read as TOML"),
        (".".join("a" * 50_000) + " = 1", "line 1 is nested more than 32 deep"),
        ("[" + " . ".join(["'a'"] * 20_000) + "]", "nested more than 32 deep"),
        ("a = {" + ".".join(['"b"'] * 20_000) + " = 1}", "nested more than 32 deep"),
        ("#" * (MOST_RECIPE + 1), "2,000,001 bytes, more than the 2,000,000 allowed"),
        ("\n".join(f"k{i} = 1" for i in range(40_000)), "more than 20 errors"),
        (f"{'k' * 900_000} = 1", "is an unknown key"),
        (f"name = 0x{'f' * 900_000}", "`name`: received a number of 3,600,000 bits, expected"),
        (f"name = {'9' * 5000}", "cannot be read as TOML"),
        (f"name = '{'x' * 900_000} '", "`name`: received 'xxx"),
        ('"\x7f" = 1', "cannot be read as TOML"),
        ('"\\u001b[31m" = 1', r"`\\x1b\[31m` is an unknown key"),
    ],
)
def test_content_that_is_no_recipe(refused, content, said):
    import re

    assert re.search(said, refused(content))


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("data", "pairs_per_epoch", 10**13, "expected at most 10000000"),
        ("data", "validation_pairs", 10**30, "expected at most 10000000"),
        ("training", "batch_size", 10**15, "expected at most 65536"),
        ("training", "epochs", 10**15, "expected at most 10000000"),
        ("training", "seeds", list(range(2000)), "expected a list with at most 1000 items"),
        ("comparison", "seeds", [2**40], "expected less than 2147483648"),
        ("model", "image_shape", [10**15, 1, 1], "expected at most 2147483647"),
    ],
)
def test_sizes_that_no_machine_has(refused, section, key, value, expected):
    table = {"data": "pairs_per_epoch", "model": "class_name"}.get(section)
    text = SMALL if table else f"{SMALL}\n[{section}]"
    line = f"{key} = {value}\n"
    message = refused(text.replace(f"[{section}]\n", f"[{section}]\n{line}") if table else
                      f"{text}\n{line}")  # fmt: skip
    assert f"`{section}.{key}" in message and "received" in message and expected in message


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "pipe", "is no regular file"),
        (tmp_path, "is a folder"),
        ("/dev/zero", "is no regular file"),
        (tmp_path / "none.toml", "There is no file"),
        ("a\0b", "cannot be read"),
        ("x" * 5000, "cannot be read"),
    ):
        with pytest.raises(RecipeError, match=said):
            read_recipe(path)


def test_options_of_any_size(recipe):
    small = recipe("pairs")
    for setting in (
        "training.epochs=" + "[" * 100_000,
        "training.epochs=" + "9" * 100_000,
        ".".join("a" * 50_000) + "=1",
        "data.path\0=1",
    ):
        with pytest.raises(RecipeError):
            changed(small, [setting])
    for options in (
        {"seeds": 10**9},
        {"sizes": "9" * 5000},
        {"sizes": "٣"},
        {"vary": "training.epochs=" + "[" * 100_000},
    ):
        with pytest.raises(UsageError):
            comparison_of(small, **options)
    assert comparison_of(small, sizes="300, 100").images_per_class == (100, 300)


@fuzzed
@given(mutated(WHOLE))
def test_nothing_else_comes_out(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "mutated.toml"
    path.write_bytes(content)
    try:
        read = read_recipe(path)
    except KerasSharedError as error:
        assert str(path) in str(error)
    else:
        assert read.to_dict()
