from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from keras_shared.batching import TrainingData
from keras_shared.datasets import OneShotRun
from keras_shared.datasets.lazy_images import Shape
from keras_shared.section import Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Metric(NamedTuple):
    """The one number that stands for a model on test data.

    Attributes:
        title: what it is, for tables and plots.
        key: its key among the test metrics.
        unit: with a space before it, or empty.
        more_is_better: whether a larger one is better.
    """

    title: str
    key: str
    unit: str
    more_is_better: bool


class Monitor(NamedTuple):
    """The number of the validation that picks the best of several runs.

    Attributes:
        key: its name in the logs of `keras.Model.fit`.
        more_is_better: whether a larger one is better.
    """

    key: str
    more_is_better: bool


class Shown(NamedTuple):
    """What a prediction looks like to a person.

    Attributes:
        text: one line.
        facts: the same by name, as JSON holds it.
    """

    text: str
    facts: dict[str, Any]


class Tested(NamedTuple):
    """What a model answered on test data.

    Attributes:
        outputs: of the model, as arrays, in its own structure; or what `Task.outputs` makes of
            them.
        truth: the targets, as arrays, in their own structure.
        batches: of inputs and targets, in the same order.
        split: the test split that they come from.
        more: what `Task.ask` gave; None without.
        chosen: what `Task.choose` gave; None without.
    """

    outputs: Any
    truth: Any
    batches: tf.data.Dataset
    split: Any
    more: Any = None
    chosen: Any = None


Baselines: TypeAlias = Callable[
    [keras.Model, tf.data.Dataset, Tested], "tuple[dict[str, float], dict[str, Figure]]"
]

OwnRuns: TypeAlias = Callable[
    [keras.Model, Sequence[OneShotRun], Shape], "tuple[dict[str, Any], dict[str, Figure]]"
]


@dataclass(frozen=True)
class Task:
    """All that differs between one kind of problem and another; a file and a line in `TASKS`.

    Attributes:
        name: as a model's class names it.
        takes: type of a data set's split, such as `LabelledImages`, or several.
        data: section [data] of a recipe.
        losses: names of losses that `training.loss` may have; the first is the default of models
            that name none of their own.
        training_data: takes training split, section [data], batch size and the run's seed.
        test_batches: takes test split, section [data] and the run's seed.
        compile_arguments: takes the loss, gives `loss` and `metrics` for `keras.Model.compile`, of
            any model with the right outputs; one metric in a list is that of each output.
        measure: test metrics, ready for JSON; lists are left out of tables.
        headline: the one metric that stands for a model.
        monitor: what picks the best of several runs, on validation data.
        plots: name -> plot of the test.
        captions: name of a plot -> its caption.
        show: takes the outputs of a signature for one example, and how many of several possible
            answers are wanted; gives what a person reads.
        baselines: takes model, batches of the training split (as of `test_batches`) and test; gives
            metrics of simpler methods, and plots; None for none.
        losses_of_shared: those for the model itself alone, not for an unshared copy of it.
        ask: takes a trained model, the test split and section [data]; gives what metrics and plots
            need of the model besides its outputs, or None; None for a task that needs no more.
        outputs: takes a trained model and test batches; gives what metrics and plots need of the
            model's outputs, where those themselves do not fit into the memory. None for the
            outputs themselves.
        samples: takes the trained model and the test; gives texts that it makes, for the card.
            None for none.
        choose: takes a trained model, the training split and section [data]; gives what is chosen
            on validation data for its use, or None; None for a task in which nothing is.
        optimizer, learning_rate: the defaults of [training].
        prepare: takes the built model and its training data, before it is compiled; None for
            nothing.
        part: takes the built model and data whose `through` is not None; gives the part of the
            model that is trained on them, whose weights are the model's own, and the data for it.
            None for a task whose models are trained whole.
        finish: takes the trained model and its training data; None for nothing.
        monitor_of: takes section [data], gives the monitor where that decides it; None for
            `monitor` in any case.
        answer_runs: takes a trained model, one-shot runs of the user's own and the shape of their
            images; gives numbers and plots. None for a task that has no such runs.
        settle: takes section [data] and the name of the loss, gives the section with what the loss
            decides; raises a ValueError for what does not fit together. None where it decides
            nothing.

    Example:
        >>> from keras_shared.tasks import TASKS
        >>> TASKS["classification"].headline.title, TASKS["classification"].monitor.key
        ('test error', 'val_accuracy')
    """

    name: str
    takes: type | tuple[type, ...]
    data: type[Section]
    losses: tuple[str, ...]
    training_data: Callable[[Any, Any, int, int], TrainingData]
    test_batches: Callable[[Any, Any, int], tf.data.Dataset]
    compile_arguments: Callable[[Any], dict[str, Any]]
    measure: Callable[[Tested], dict[str, Any]]
    headline: Metric
    monitor: Monitor
    plots: Callable[[Tested], "dict[str, Figure]"]
    captions: Mapping[str, str]
    show: Callable[[Mapping[str, np.ndarray], int], Shown]
    losses_of_shared: tuple[str, ...] = ()
    ask: Callable[[keras.Model, Any, Any], Any] | None = None
    outputs: Callable[[keras.Model, tf.data.Dataset], Any] | None = None
    samples: Callable[[keras.Model, Tested], list[str]] | None = None
    choose: Callable[[keras.Model, Any, Any], Any] | None = None
    optimizer: str = "adam"
    learning_rate: float = 0.001
    baselines: Baselines | None = None
    prepare: Callable[[keras.Model, TrainingData], None] | None = None
    part: Callable[[keras.Model, TrainingData], tuple[keras.Model, TrainingData]] | None = None
    finish: Callable[[keras.Model, TrainingData], None] | None = None
    monitor_of: Callable[[Any], Monitor] | None = None
    settle: Callable[[Any, str], Any] | None = None
    answer_runs: OwnRuns | None = None

    def monitored(self, data: Any) -> Monitor:
        """What picks the best of several runs with this section [data]."""
        return self.monitor if self.monitor_of is None else self.monitor_of(data)
