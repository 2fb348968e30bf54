"""Options of the command line that change a recipe: --set, --vary, --seeds, --sizes."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_shared.errors import UsageError, attempt
from keras_shared.recipes.recipe import Recipe, RecipeError, read_toml

if TYPE_CHECKING:
    from keras_shared.recipes.schema import Comparison


def changed(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """A recipe with the values that `--set KEY=VALUE` gives.

    Args:
        recipe: the recipe.
        settings: each `KEY=VALUE`, the value as TOML writes it; strings need no quotes.

    Raises:
        UsageError: for a setting of another form.
        RecipeError: for an unknown key, or a value that it does not take.

    Example:
        >>> from keras_shared.presets.names import entry_dir
        >>> from keras_shared.recipes import read_recipe
        >>> from keras_shared.recipes.changes import changed
        >>> recipe = read_recipe(entry_dir("lenet5_mnist") / "recipe.toml")
        >>> changed(recipe, ["training.epochs=5", "model.variant=modern"]).model.variant
        'modern'
    """
    changes = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise UsageError(
                f"--set takes KEY=VALUE, such as training.epochs=5. Received: {setting!r}"
            )
        key = key.strip()
        changes[key] = _text(text.strip()) if _is_text(recipe, key) else _value(text.strip())
    return recipe.with_changes(changes) if changes else recipe


def comparison_of(
    recipe: Recipe, seeds: int | None = None, vary: str | None = None, sizes: str | None = None
) -> "Comparison":
    """What to compare: section [comparison] of a recipe, or shared and unshared, or as asked.

    Args:
        recipe: the recipe.
        seeds: number of seeds, 1 to so many.
        vary: `KEY=A,B`: an arm for each value.
        sizes: `N,N`: images of each class to train on.

    Raises:
        UsageError: for options that cannot be read so.

    Example:
        >>> from keras_shared.presets.names import entry_dir
        >>> from keras_shared.recipes import read_recipe
        >>> from keras_shared.recipes.changes import comparison_of
        >>> recipe = read_recipe(entry_dir("tied_autoencoder_mnist") / "recipe.toml")
        >>> [arm.changes for arm in comparison_of(recipe, vary="training.epochs=1,2").arms]
        [{'training.epochs': 1}, {'training.epochs': 2}]
    """
    from keras_shared.recipes.schema import MOST_SEEDS, Arm, Comparison

    kept = recipe.comparison or Comparison()
    if seeds is not None:
        if not 1 <= seeds <= MOST_SEEDS:
            raise UsageError(f"--seeds: received {seeds}, expected 1 to {MOST_SEEDS}")
        kept = kept.model_copy(update={"seeds": tuple(range(1, seeds + 1))})
    if vary is not None:
        key, _, text = vary.partition("=")
        values = _values(recipe, key, text)
        if len(values) < 2 or len({str(value) for value in values}) < len(values):
            raise UsageError(
                f"--vary: received {vary!r}, expected KEY=A,B with at least two values, each once"
            )
        arms = tuple(
            Arm(name=f"{key.rpartition('.')[2]} {value}", changes={key: value}) for value in values
        )
        kept = kept.model_copy(update={"arms": arms})
    if sizes is not None:
        if not re.fullmatch(r"\s*0*[1-9][0-9]{0,6}\s*(,\s*0*[1-9][0-9]{0,6}\s*)*", sizes, re.ASCII):
            raise UsageError(
                f"--sizes: received {sizes!r}, expected whole numbers with commas between"
            )
        numbers = tuple(sorted({int(text) for text in sizes.split(",")}))
        kept = kept.model_copy(update={"images_per_class": numbers})
    return kept


def _is_text(recipe: Recipe, key: str) -> bool:
    """Whether the key holds a string, which needs no quotes then."""
    section, _, inner = key.rpartition(".")
    holder = getattr(recipe, section, None) if section else recipe
    return isinstance(getattr(holder, inner, None), str)


def _text(text: str) -> str:
    """A text as it stands, or in quotes."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return str(_value(text)) if quoted else text


def _value(text: str) -> Any:
    return _as_toml(text, text, "--set")  # the recipe's own check says what is wrong with it


def _values(recipe: Recipe, key: str, text: str) -> list[Any]:
    """Values with commas between, as TOML reads them; texts need no quotes."""
    values = [_text(value.strip()) for value in text.split(",") if value.strip()]
    if not _is_text(recipe, key):
        return list(_as_toml(f"[{text}]", values, "--vary"))
    quoted = "'" in text or '"' in text
    return list(map(str, _as_toml(f"[{text}]", values, "--vary") if quoted else values))


def _as_toml(text: str, otherwise: Any, option: str) -> Any:
    table, wrong = attempt(lambda: read_toml(f"value = {text}", option), RecipeError)
    return otherwise if wrong else table["value"]
