"""The folder of a run: who may write there, its files, and the best of several seeds."""

import csv
import io
import json
import math
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras

from keras_shared.errors import KerasSharedError, advised, attempt, boundary
from keras_shared.files.archives import open_archive, read_part
from keras_shared.files.atomic import Lock, locked, make_folder, replace_text, replacing
from keras_shared.files.bounded import read_json, read_text
from keras_shared.files.limits import MOST_TEXT
from keras_shared.presets.loading import load
from keras_shared.recipes import Recipe, RecipeError, read_recipe, recipe_from

RECORD = "run.json"  # inside of a model's file: the recipe, the start, the history until then
AGAIN = "Train its recipe into this folder again: it goes on from the last whole epoch."
WAIT = "Wait for it, or name another folder with --out."
READING = 3.0  # seconds to wait for another process that reads the run

Row = dict[str, float]


class Record(NamedTuple):
    """What the file of a model says of the run that it is of."""

    recipe: Recipe
    start: str
    history: list[Row]


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

    The checkpoint holds the recipe, the start and the history besides, and so decides: the other
    files are written anew from it where a power cut or an edit took them.

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
        self._lock: Lock | None = None

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
        found = {
            int(match[1]): file
            for file in self.path.glob("seed-*/recipe.toml")
            if (match := re.fullmatch(r"seed-([0-9]{1,10})", file.parent.name))
        }
        kept = self._kept_recipe()
        own = () if kept is None else kept.training.seeds
        if found and len(own) == 1:
            raise RunError(
                f"{self.path} holds a run of one seed and runs of several. Name one of its folders "
                "seed-<n>, or move them to another place."
            )
        numbers = {*own, *found}
        for file in found.values():  # older ones hold all seeds
            inner = Run(file.parent)._kept_recipe()
            numbers |= set() if inner is None else set(inner.training.seeds)
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
        make_folder(self.path)
        for run in begun:
            if run.path.is_dir():
                with locked(run.path, RunError, WAIT):  # by nobody else
                    pass
        recipe.write(self.recipe_file)

    def holds_an_epoch(self) -> bool:
        """Whether there is anything that training again would have to repeat."""
        return any(f.exists() for f in (self.checkpoint, self.model_file, self.facts_file))

    def best(self) -> "Run":
        """The finished run that is best on validation data, by the task's monitor.

        The first of them, if nothing validates.

        Raises:
            RunError: if a run is not finished, or all have diverged.
        """
        runs = self.begun()
        unfinished = [str(run.path) for run in runs if not run.facts_file.exists()]
        if unfinished:
            raise RunError(f"Not trained to the end: {', '.join(unfinished)}")
        for run in runs:
            run.check()
        recipe = runs[0].recipe()
        monitor = recipe.task.monitored(recipe.data)

        def rank(run: Run) -> float:
            last = run.facts()["last_epoch"]
            if any(map(math.isnan, last.values())):  # a run that diverged
                return float("-inf")
            if not any(key.startswith("val_") for key in last):
                return 0.0
            if monitor.key not in last:
                raise RunError(
                    f"{run.path}: its history has no '{monitor.key}', by which the best run is "
                    f"picked. It has: {list(last)}"
                )
            value: float = last[monitor.key]
            return value if monitor.more_is_better else -value

        best = max(runs, key=rank)
        last = best.facts()["last_epoch"]
        if any(map(math.isnan, last.values())):
            raise RunError(
                f"{self.path}: no run is the best, since all diverged: {last}. "
                "Lower training.learning_rate, and train into another folder."
            )
        return best

    # === What is in the files ===

    def recipe(self) -> Recipe:
        """The recipe of the run."""
        return read_recipe(self.recipe_file)

    def facts(self) -> dict[str, Any]:
        """What a finished run knows of itself: epochs, seed, seconds, data, versions.

        Raises:
            RunError: if training.json is not what training writes.
        """
        facts = read_json(self.facts_file, RunError, AGAIN)
        name = str(self.facts_file)
        with boundary(f"{name} is not what training writes", RunError, AGAIN):
            if not all(isinstance(value, (int, float)) for value in facts["last_epoch"].values()):
                raise RunError(f"{name}: in 'last_epoch' numbers are expected. {AGAIN}")
        return facts

    def model(self) -> keras.Model:
        """The trained model of a finished run, without its optimizer.

        Raises:
            RunError: if the run's files do not agree with each other, or if it is in training.
            LoadError: if the model cannot be loaded.
        """
        with locked(self.path, RunError, "Wait for it.", READING):
            self.check()
            return load(self.model_file, compile=False)

    def check(self) -> None:
        """See that the files of a finished run agree with each other.

        Raises:
            RunError: with those that do not, and how to go on.
        """
        recipe, facts, rows = self.recipe(), self.facts(), self.history()
        kept, epochs = self.record(self.model_file), recipe.training.epochs
        known = in_short(rows) | {"epochs": len(rows), "seed": recipe.training.seeds[0]}
        history, model = self.history_file.name, self.model_file.name
        wrong = []
        if len(rows) != epochs:
            wrong.append(f"{history} has {len(rows)} epochs, and the recipe {epochs}")
        for key, value in known.items():
            # of an older version some are missing; as text, since NaN is not itself
            if key in facts and json.dumps(facts[key]) != json.dumps(value):
                other = self.recipe_file.name if key == "seed" else history
                wrong.append(f"'{key}' in {self.facts_file.name} is another than by {other}")
        if kept is not None and kept.recipe != recipe:
            wrong.append(f"{model} was trained by another recipe than {self.recipe_file.name}")
        elif kept is not None and json.dumps(kept.history) != json.dumps(rows):
            wrong.append(f"{model} was trained with another history than {history}")
        if wrong:
            raise RunError(f"{self.path}: its files do not agree: {'; '.join(wrong)}. {AGAIN}")

    def history(self, epochs: int | None = None) -> list[Row]:
        """The rows of the history, one for each epoch; the first of them, if told how many.

        Raises:
            RunError: if history.csv is not what training writes.
        """
        if not os.path.lexists(self.history_file):
            return []
        with advised(AGAIN):
            lines = read_text(self.history_file, RunError).splitlines()
        with boundary(f"{self.history_file} cannot be read", RunError, AGAIN):
            header, *rows = csv.reader(lines) if lines else [[]]
            return _rows([_row(header, row) for row in rows[:epochs]])

    def write_history(self, rows: Sequence[Row]) -> None:
        """Write the history up to the last whole epoch."""
        self._check_lock()
        if not rows:
            self.history_file.unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "epoch": int(row["epoch"])} for row in rows)
        replace_text(self.history_file, text.getvalue())

    def save(self, model: keras.Model, file: pathlib.Path, record: Record) -> None:
        """Save the whole model, with what it is of inside, beside its place and renamed."""
        self._check_lock()
        kept = {**record._asdict(), "recipe": record.recipe.to_dict()}
        with replacing(file) as scratch:
            model.save(scratch)
            with zipfile.ZipFile(scratch, "a") as archive:
                archive.writestr(RECORD, json.dumps(kept))

    def record(self, file: pathlib.Path) -> Record | None:
        """What the checkpoint, or the trained model, is of; None if an older version wrote it.

        Raises:
            RunError: if it cannot be read.
        """
        name = str(file)
        if not os.path.lexists(file):
            raise RunError(f"There is no file {name}. {AGAIN}")
        advice = f"Remove it: the run begins again then. Or name another folder than {self.path}."
        if not file.is_file():
            raise RunError(f"{name} is no regular file. {advice}")
        unreadable = boundary(f"{name} cannot be read", RunError, advice)
        with advised(advice), unreadable, open_archive(file, RunError) as archive:
            if RECORD not in archive.namelist():
                return None
            if (size := archive.getinfo(RECORD).file_size) > MOST_TEXT:
                raise RunError(f"{name} has a {RECORD} of {size:,} bytes. {advice}")
            kept = json.loads(read_part(archive, RECORD))
            recipe = recipe_from(kept["recipe"], f"{file}/{RECORD}")
            return Record(recipe, str(kept["start"]), _rows(kept["history"]))

    def epochs_done(self) -> int:
        """Number of epochs that the checkpoint has seen; 0 without one, or if it does not say.

        Raises:
            RunError: if it cannot be read.
        """
        if not self.checkpoint.exists():
            return 0
        if (kept := self.record(self.checkpoint)) is not None:
            return len(kept.history)
        file = self.checkpoint
        with boundary(f"{file} cannot be read", RunError), open_archive(file, RunError) as archive:
            return int(archive.comment or 0)

    def history_of_checkpoint(self, otherwise: int) -> list[Row]:
        """The history up to the epoch of the checkpoint.

        Args:
            otherwise: the number of its epochs, where an older version did not write it.

        Raises:
            RunError: if history.csv has fewer, and an older version wrote the checkpoint.
        """
        if (kept := self.record(self.checkpoint)) is not None:
            return kept.history
        epochs = self.epochs_done() or otherwise
        advice = "Put the whole file back, or remove the checkpoint: the run begins again then."
        with advised(advice):
            rows = self.history(epochs)
        if len(rows) < epochs:
            raise RunError(
                f"{self.path}: its files do not agree: {self.history_file.name} has {len(rows)} "
                f"epochs, and {self.checkpoint.name} {epochs}. {advice}"
            )
        return rows

    def _kept_recipe(self) -> Recipe | None:
        """The recipe, or None if there is none that can be read."""
        return attempt(self.recipe, RecipeError)[0] if self.recipe_file.exists() else None

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
        with locked(self.path, RunError, WAIT) as self._lock:
            self.claim(recipe, start)
            yield

    def _check_lock(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def claim(self, recipe: Recipe, start: str) -> None:
        """As `claimed`, without keeping others out afterwards."""
        make_folder(self.path)
        recipe, start = recipe.with_seed(recipe.training.seeds[0]), start_text(recipe, start)
        if not self.holds_an_epoch():
            replace_text(self._start_file, start)
            recipe.write(self.recipe_file)
            self.history_file.unlink(missing_ok=True)
            return
        self._see_that_same(recipe)
        files = [file for file in (self.checkpoint, self.model_file) if file.exists()]
        kept = self.record(files[0]) if files else None
        if kept is None:  # of an older version, whose files alone say what it is of
            self._see_that_started(start)
            return
        if kept.recipe.with_seed(0) != recipe.with_seed(0):
            raise RunError(
                f"{files[0]} is of another recipe. Name another folder with --out, or remove it: "
                "the run begins again then."
            )
        if kept.start != start:
            raise _other_start(self.path)
        if self._kept_recipe() is None:  # a power cut took it
            recipe.write(self.recipe_file)

    def _see_that_same(self, recipe: Recipe) -> None:
        kept = self._kept_recipe()
        if kept is not None and kept.with_seed(0) != recipe.with_seed(0):
            raise RunError(
                f"{self.path} holds a run of another recipe. Name another folder with --out, or "
                "remove this one."
            )

    def _see_that_started(self, start: str) -> None:
        with advised("Put the recipe of this run back, or name another folder with --out."):
            self.recipe()
        advice = (
            f"If it began as it is to begin now, put a file there with this one line: {start}. "
            "Otherwise name another folder with --out."
        )
        with advised(advice):
            kept = read_text(self._start_file, RunError).strip()
        if not kept:
            raise RunError(f"{self._start_file} is empty. {advice}")
        if kept != start:
            raise _other_start(self.path)


def start_text(recipe: Recipe, start: str) -> str:
    """What a run keeps of its start: what stands for the weights, and the seed."""
    return f"{start}, seed {recipe.training.seeds[0]}"


def in_short(rows: Sequence[Row]) -> dict[str, Any]:
    """The history as training.json has it."""
    names = [key for key in (rows[-1] if rows else {}) if key not in ("epoch", "seconds")]
    return {
        "last_epoch": {key: rows[-1][key] for key in names},
        "history": {key: [float(f"{row[key]:.5g}") for row in rows] for key in names},
    }


def _other_start(path: pathlib.Path) -> RunError:
    return RunError(
        f"{path} holds a run from another start or seed. Name another folder with --out, or "
        "remove this one."
    )


def _row(header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        raise ValueError(f"a row has {len(cells)} values, and {len(header)} are expected: {cells}")
    return {name: float(cell) for name, cell in zip(header, cells, strict=True)}


def _rows(rows: list[Row]) -> list[Row]:
    """Rows that are whole: the same numbers for each epoch, from 0 on."""
    for number, row in enumerate(rows):
        if row.get("epoch") != number:
            raise ValueError(f"row {number + 1} is of epoch {row.get('epoch')}, not {number}")
        if list(row) != list(rows[0]):
            raise ValueError(f"row {number + 1} has {list(row)}, and the first {list(rows[0])}")
    return [{key: float(value) for key, value in row.items()} for row in rows]
