"""The folder of a run: who may write there, its files, and the best of several seeds."""

import csv
import fcntl
import json
import math
import os
import pathlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_shared.atomic import replace_text, replacing
from keras_shared.errors import KerasSharedError
from keras_shared.recipes import Recipe, read_recipe


class RunError(KerasSharedError, RuntimeError):
    """A run cannot start, go on or be used; the message says what to do."""


class Run:
    """The folder of one run, or of the runs of several seeds (`seed-<n>/` each).

    Attributes:
        path: the folder.
        recipe_file: the resolved recipe.
        checkpoint: the whole model with its optimizer, after the last epoch that is complete.
        history_file: a row for each epoch.
        model_file: the trained model.
        facts_file: what a finished run knows of itself.
        logs: for TensorBoard.

    Example:
        >>> from keras_shared.training import Run
        >>> Run("runs/mine").history_file.name
        'history.csv'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        self.recipe_file = self.path / "recipe.toml"
        self.checkpoint = self.path / "checkpoint.keras"
        self.history_file = self.path / "history.csv"
        self.model_file = self.path / "model.keras"
        self.facts_file = self.path / "training.json"
        self.logs = self.path / "logs"
        self._start_file = self.path / "start.txt"

    @property
    def from_nothing(self) -> "Run":
        """The run of the same net without the start that a fine-tuning had, to compare with."""
        return Run(self.path / "from_nothing")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __fspath__(self) -> str:
        return str(self.path)

    # === Several seeds ===

    def of_seeds(self, recipe: Recipe) -> dict[int, "Run"]:
        """The run of each seed of a recipe: this one for a single seed, else a folder for each."""
        seeds = recipe.training.seeds
        if len(seeds) == 1:
            return {seeds[0]: self}
        return {seed: Run(self.path / f"seed-{seed}") for seed in seeds}

    def begun(self) -> list["Run"]:
        """The runs here: this one alone, or those of all seeds of the recipe.

        Raises:
            RunError: if there are both.
        """
        found = sorted(self.path.glob("seed-*/recipe.toml"))
        own = self.recipe().training.seeds if self.recipe_file.exists() else ()
        if found and len(own) == 1:
            raise RunError(
                f"{self.path} holds a run of one seed and runs of several. Name one of its folders "
                "seed-<n>, or move them to another place."
            )
        numbers = {*own, *(int(file.parent.name.removeprefix("seed-")) for file in found)}
        for file in found:  # older ones hold all seeds
            numbers |= set(read_recipe(file).training.seeds)
        if len(own) == 1 or not numbers:
            return [self]
        return [Run(self.path / f"seed-{number}") for number in sorted(numbers)]

    def expect(self, recipe: Recipe) -> None:
        """Keep the recipe of several seeds here, so that a run that is missing is noticed.

        Raises:
            RunError: if it holds runs of another recipe.
        """
        if len(recipe.training.seeds) == 1:
            return
        begun = self.begun()
        if begun == [self] and self.holds_an_epoch():
            raise RunError(
                f"{self.path} holds a run of one seed, and the recipe has several. Name another "
                "folder with --out, or remove this one."
            )
        if any(run.holds_an_epoch() for run in begun):
            self._see_that_same(recipe)
        self.path.mkdir(parents=True, exist_ok=True)
        for run in begun:
            if run.path.is_dir():
                with run._locked():  # by nobody else
                    pass
        recipe.write(self.recipe_file)

    def holds_an_epoch(self) -> bool:
        """Whether there is anything that training again would have to repeat."""
        return any(f.exists() for f in (self.checkpoint, self.model_file, self.facts_file))

    def best(self) -> "Run":
        """The finished run that is best on validation data, by the task's monitor.

        Raises:
            RunError: if a run is not finished.
        """
        runs = self.begun()
        unfinished = [str(run.path) for run in runs if not run.facts_file.exists()]
        if unfinished:
            raise RunError(f"Not trained to the end: {', '.join(unfinished)}")
        recipe = runs[0].recipe()
        monitor = recipe.task.monitored(recipe.data)

        def rank(run: Run) -> float:
            last = run.facts()["last_epoch"]
            if monitor.key not in last:
                raise RunError(
                    f"{run.path}: its history has no '{monitor.key}', by which the best run is "
                    f"picked. It has: {list(last)}"
                )
            value = last[monitor.key] if monitor.more_is_better else -last[monitor.key]
            return float("-inf") if math.isnan(value) else value  # a run that diverged

        return max(runs, key=rank)

    # === What is in the files ===

    def recipe(self) -> Recipe:
        """The recipe of the run."""
        return read_recipe(self.recipe_file)

    def facts(self) -> dict[str, Any]:
        """What a finished run knows of itself: epochs, seed, seconds, data, versions."""
        facts: dict[str, Any] = json.loads(self.facts_file.read_text())
        return facts

    def history(self) -> list[dict[str, float]]:
        """The rows of the history, one for each epoch."""
        if not self.history_file.exists():
            return []
        with self.history_file.open(newline="") as file:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]

    def keep_history(self, epochs: int) -> None:
        """Drop the row of an epoch whose checkpoint was never finished."""
        if self.history_file.exists():
            lines = self.history_file.read_text().splitlines(keepends=True)
            replace_text(self.history_file, "".join(lines[: epochs + 1] if epochs else []))

    def save_checkpoint(self, model: keras.Model, epochs: int) -> None:
        """Save the whole model after so many epochs, beside its place and renamed."""
        with replacing(self.checkpoint) as scratch:
            model.save(scratch)
            with zipfile.ZipFile(scratch, "a") as archive:  # the number can never be another's
                archive.comment = str(epochs).encode()

    def epochs_done(self) -> int:
        """Number of epochs that the checkpoint has seen; 0 without one, or if it does not say."""
        if not self.checkpoint.exists():
            return 0
        with zipfile.ZipFile(self.checkpoint) as archive:
            return int(archive.comment or 0)

    # === Who writes ===

    @contextmanager
    def claimed(self, recipe: Recipe, start: str) -> Iterator[None]:
        """Make this the folder of a recipe from a start, and keep others out while it is written.

        A run that has no complete epoch yet leaves the folder to any other recipe.

        Args:
            recipe: the recipe, for its first seed.
            start: stands for what the training starts from.

        Raises:
            RunError: if another process trains here, or if it holds a run of another recipe, seed
                or start.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self.claim(recipe, start)
            yield

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"Another process trains in {self.path}. Wait for it, or name another folder "
                    "with --out."
                ) from None
            yield
        finally:
            os.close(folder)  # and with it the lock

    def claim(self, recipe: Recipe, start: str) -> None:
        """As `claimed`, without keeping others out afterwards."""
        self.path.mkdir(parents=True, exist_ok=True)
        seed = recipe.training.seeds[0]
        recipe, start = recipe.with_seed(seed), f"{start}, seed {seed}"
        if not self.recipe_file.exists() or not self.holds_an_epoch():
            replace_text(self._start_file, start)
            recipe.write(self.recipe_file)
            self.history_file.unlink(missing_ok=True)
            return
        self._see_that_same(recipe)
        if not self._start_file.exists() or self._start_file.read_text() != start:
            raise RunError(
                f"{self.path} holds a run from another start or seed. Name another folder with "
                "--out, or remove this one."
            )

    def _see_that_same(self, recipe: Recipe) -> None:
        if self.recipe_file.exists() and self.recipe().with_seed(0) != recipe.with_seed(0):
            raise RunError(
                f"{self.path} holds a run of another recipe. Name another folder with --out, or "
                "remove this one."
            )
