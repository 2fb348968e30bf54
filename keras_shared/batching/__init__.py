"""From examples to batches, drawn by number so that a training can go on where it stopped."""

from keras_shared.batching.images import ImageData as ImageData
from keras_shared.batching.images import image_test_batches as image_test_batches
from keras_shared.batching.images import image_training_data as image_training_data
from keras_shared.batching.pairs import PairData as PairData
from keras_shared.batching.pairs import Pairs as Pairs
from keras_shared.batching.pairs import pair_test_batches as pair_test_batches
from keras_shared.batching.pairs import pair_training_data as pair_training_data
from keras_shared.batching.training_data import TrainingData as TrainingData
