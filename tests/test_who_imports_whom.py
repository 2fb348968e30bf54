"""The table of CONTRIBUTING.md, kept: which room may not import which."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "keras_shared"
OURS = "keras_shared."
FORBIDDEN = {  # room: what it may not import, at the top or inside a function
    "layers/": ("tensorflow", *(OURS + r for r in (
        "zoo", "data", "training", "losses", "publishing", "exporting", "loading", "recipe"))),
    "tying/": ("tensorflow", *(OURS + r for r in ("layers", "zoo", "data", "training", "losses"))),
    "sharing/": (OURS + "zoo", OURS + "data", OURS + "recipe", OURS + "training",
                 OURS + "publishing"),
    "losses/": (
        "tensorflow",
        *(OURS + r for r in ("layers", "tying", "zoo", "data", "training", "recipe")),
    ),
    "zoo/": (OURS + "data", OURS + "recipe", OURS + "training", OURS + "publishing",
             OURS + "serving", "tensorflow"),
    "recipe.py": ("keras", "tensorflow", "keras_shared"),
    "entries.py": ("keras", "tensorflow"),
    "data/": (OURS + "layers", OURS + "zoo", OURS + "training"),
    "training.py": (OURS + "publishing", *(OURS + f"zoo.{n}" for n in (
        "SiameseNet", "TiedAutoencoder", "LeNet5", "LeCun1989", "siamese_net", "tied_autoencoder",
        "lenet5", "lecun_1989")),
        *(OURS + f"data.{n}" for n in ("digits", "mnist", "fashion_mnist", "omniglot"))),
    "exporting/": (OURS + "zoo", OURS + "layers", OURS + "data"),
    "serving/": ("keras", *(OURS + r for r in (
        "layers", "tying", "zoo", "data", "training", "losses", "exporting", "publishing",
        "loading", "answering", "recipe"))),
    "publishing.py": (OURS + "data", OURS + "training", OURS + "recipe"),
}  # fmt: skip
LAZY = (  # never wait for Keras
    "cli.py", "__init__.py", "entries.py", "recipe.py", "card.py", "comparison_card.py",
    "figures.py",
)  # fmt: skip


def imports_of(path, top_only=False):
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in tree.body if top_only else ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name, room):
    return (name + ".").startswith(room + ".")


@pytest.mark.parametrize("room", FORBIDDEN)
def test_room_imports_nothing_forbidden(room):
    files = [PACKAGE / room] if room.endswith(".py") else list((PACKAGE / room).glob("*.py"))
    assert files
    found = [
        (f.name, n) for f in files for n in imports_of(f) for r in FORBIDDEN[room] if within(n, r)
    ]
    assert not found


def test_private_keras_is_in_one_file():
    users = {f.name for f in PACKAGE.rglob("*.py") for n in imports_of(f) if within(n, "keras.src")}
    assert users == {"keras_private.py"}


@pytest.mark.parametrize("name", LAZY)
def test_light_modules_import_nothing_heavy_at_the_top(name):
    heavy = ("keras", "tensorflow", "sklearn", "matplotlib", "rich", "numpy")
    assert not [n for n in imports_of(PACKAGE / name, top_only=True) for h in heavy if within(n, h)]
