"""What a model reaches on test data: figures, plots and the card of its entry."""

from keras_shared.evaluation.evaluate import evaluate as evaluate
from keras_shared.evaluation.evaluate import known_runs as known_runs
from keras_shared.sharing.unsharing import unshare as unshare
