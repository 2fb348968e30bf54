"""Data sets. A new one is a file here and a line in `DATASETS`, or in `OWN` for users' data."""

from keras_shared import start as start
from keras_shared.datasets.arrays import arrays_dataset
from keras_shared.datasets.arrays import from_arrays as from_arrays
from keras_shared.datasets.dataset import DataError as DataError
from keras_shared.datasets.dataset import Dataset as Dataset
from keras_shared.datasets.digits import DIGITS
from keras_shared.datasets.digits import load_digits as load_digits
from keras_shared.datasets.fashion_mnist import FASHION_MNIST
from keras_shared.datasets.fashion_mnist import load_fashion_mnist as load_fashion_mnist
from keras_shared.datasets.folder import folder_dataset
from keras_shared.datasets.folder import from_folder as from_folder
from keras_shared.datasets.image_pairs import ImagePairs as ImagePairs
from keras_shared.datasets.image_pairs import from_pairs as from_pairs
from keras_shared.datasets.image_pairs import pairs_dataset
from keras_shared.datasets.labelled_images import LabelledImages as LabelledImages
from keras_shared.datasets.labelled_sentences import LabelledSentences as LabelledSentences
from keras_shared.datasets.mnist import MNIST
from keras_shared.datasets.mnist import load_mnist as load_mnist
from keras_shared.datasets.mnist_and_fashion import MNIST_AND_FASHION
from keras_shared.datasets.mnist_and_fashion import load_mnist_and_fashion as load_mnist_and_fashion
from keras_shared.datasets.multi_mnist import MULTI_MNIST
from keras_shared.datasets.multi_mnist import load_multi_mnist as load_multi_mnist
from keras_shared.datasets.omniglot import (
    OMNIGLOT,
    OMNIGLOT_BACKGROUND,
    OMNIGLOT_SMALL1,
    OMNIGLOT_SMALL2,
)
from keras_shared.datasets.omniglot import load_omniglot as load_omniglot
from keras_shared.datasets.one_shot_runs import OneShotRun as OneShotRun
from keras_shared.datasets.one_shot_runs import read_one_shot_runs as read_one_shot_runs
from keras_shared.datasets.own import OwnData as OwnData
from keras_shared.datasets.sentences import from_sentences as from_sentences
from keras_shared.datasets.sentences import sentences_dataset
from keras_shared.datasets.several_labels import SeveralLabels as SeveralLabels
from keras_shared.datasets.sst2 import SST2
from keras_shared.datasets.sst2 import load_sst2 as load_sst2
from keras_shared.datasets.text import from_text as from_text
from keras_shared.datasets.text import text_dataset
from keras_shared.datasets.text_stream import TextStream as TextStream
from keras_shared.datasets.tfds import tfds_dataset
from keras_shared.datasets.tiny_shakespeare import TINY_SHAKESPEARE
from keras_shared.datasets.tiny_shakespeare import load_tiny_shakespeare as load_tiny_shakespeare
from keras_shared.datasets.trec import TREC
from keras_shared.datasets.trec import load_trec as load_trec
from keras_shared.datasets.wikitext2 import WIKITEXT2
from keras_shared.datasets.wikitext2 import load_wikitext2 as load_wikitext2

DATASETS: dict[str, Dataset] = {
    "digits": DIGITS,
    "fashion_mnist": FASHION_MNIST,
    "mnist": MNIST,
    "mnist_and_fashion": MNIST_AND_FASHION,
    "multi_mnist": MULTI_MNIST,
    "omniglot": OMNIGLOT,
    "omniglot_background": OMNIGLOT_BACKGROUND,
    "omniglot_small1": OMNIGLOT_SMALL1,
    "omniglot_small2": OMNIGLOT_SMALL2,
    "sst2": SST2,
    "tiny_shakespeare": TINY_SHAKESPEARE,
    "trec": TREC,
    "wikitext2": WIKITEXT2,
}

# the user's own, which lie at `data.path`
OWN: dict[str, OwnData] = {
    "folder": OwnData(folder_dataset, "a folder with a sub-folder for each class", ""),
    "arrays": OwnData(arrays_dataset, "a .npz file of arrays", ".npz"),
    "pairs": OwnData(pairs_dataset, "a .csv file of pairs (for verification)", ".csv", ImagePairs),
    "text": OwnData(text_dataset, "a .txt file (to model its language)", ".txt", TextStream, False),
    "sentences": OwnData(
        sentences_dataset, "a .csv file of text,label", ".csv", LabelledSentences, False
    ),
    "tfds": OwnData(tfds_dataset, "the name of a set of TFDS", None),
}
