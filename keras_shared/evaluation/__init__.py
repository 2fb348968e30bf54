"""What a model reaches on test data: metrics, plots and the card of its entry."""

from keras_shared import start as start
from keras_shared.evaluation.entry import evaluate as evaluate
from keras_shared.evaluation.own_runs import evaluate_runs as evaluate_runs
