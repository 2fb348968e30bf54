import numpy as np

from keras_shared.datasets.dataset import Dataset
from keras_shared.datasets.labelled_sentences import LabelledSentences
from keras_shared.datasets.splitting import check_split
from keras_shared.datasets.tfds_split import load_tfds


def load_sst2(split: str, data_dir: str | None = None) -> LabelledSentences:
    """SST-2 of GLUE through TFDS: phrases of film reviews, negative or positive.

    67,349 phrases train. GLUE keeps the labels of its test sentences to itself: as the test split
    stand the 872 whole sentences of its validation split, on which papers report.

    Args:
        split: `"train"` or `"test"`.
        data_dir: see `keras_shared.datasets.tfds_split.load_tfds`.

    Raises:
        DataError: for another split, or if it is not there and cannot be downloaded.

    Reference:
        Socher et al. 2013, "Recursive Deep Models for Semantic Compositionality over a Sentiment
        Treebank"; Wang et al. 2019, "GLUE", section 3.1.
    """
    part = "train" if check_split(split) == "train" else "validation"
    arrays, _ = load_tfds("glue/sst2", part, data_dir)
    return LabelledSentences(
        sentences_of(arrays["sentence"]), arrays["label"].astype(int), ("negative", "positive")
    )


def sentences_of(encoded: np.ndarray) -> np.ndarray:
    """Bytes as TFDS gives them -> strings."""
    return np.array([sentence.decode("utf-8").strip() for sentence in encoded], object)


SST2 = Dataset("SST-2", "Socher et al. 2013, GLUE", "", LabelledSentences, load_sst2)
