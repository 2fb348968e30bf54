"""Data sets as arrays, and the batches that a recipe draws from them."""

from keras_shared.batching.batches import TrainingData as TrainingData
from keras_shared.batching.batches import labelled_images as labelled_images
from keras_shared.batching.batches import test_batches as test_batches
from keras_shared.batching.batches import training_data as training_data
from keras_shared.datasets.labelled_images import DataError as DataError
from keras_shared.datasets.labelled_images import LabelledImages as LabelledImages
