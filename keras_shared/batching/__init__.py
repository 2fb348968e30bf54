"""From examples to batches, drawn by number so that a training can go on where it stopped."""

from keras_shared import start as start
from keras_shared.batching.draws import class_batches as class_batches
from keras_shared.batching.draws import pair_batches as pair_batches
from keras_shared.batching.draws import triplet_batches as triplet_batches
from keras_shared.batching.images import ImageData as ImageData
from keras_shared.batching.pairs import PairData as PairData
from keras_shared.batching.sentences import SentenceData as SentenceData
from keras_shared.batching.texts import TextData as TextData
from keras_shared.batching.training_data import TrainingData as TrainingData
