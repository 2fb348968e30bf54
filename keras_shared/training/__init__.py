"""From a recipe to a trained model in the folder of a run."""

from keras_shared import start as start
from keras_shared.training.build import build_model as build_model
from keras_shared.training.build import start_model as start_model
from keras_shared.training.build import training_data as training_data
from keras_shared.training.fit import train as train
from keras_shared.training.run import Run as Run
from keras_shared.training.run import RunError as RunError
