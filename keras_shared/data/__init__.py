"""Data sets as arrays, and the batches that a recipe draws from them."""

from keras_shared.data.batches import TrainingData as TrainingData
from keras_shared.data.batches import labelled_images as labelled_images
from keras_shared.data.batches import test_batches as test_batches
from keras_shared.data.batches import training_data as training_data
from keras_shared.data.labelled_images import DataError as DataError
from keras_shared.data.labelled_images import LabelledImages as LabelledImages
