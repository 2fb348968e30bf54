from keras_shared.datasets.dataset import Dataset
from keras_shared.datasets.labelled_sentences import LabelledSentences
from keras_shared.datasets.splitting import check_split
from keras_shared.datasets.sst2 import sentences_of
from keras_shared.datasets.tfds_split import load_tfds


def load_trec(split: str, data_dir: str | None = None) -> LabelledSentences:
    """TREC's questions through TFDS, by what is asked for: six classes.

    5,452 questions train, 500 test. The classes are TFDS' coarse ones: DESC (a description), ENTY
    (a thing), ABBR (an abbreviation), HUM (a person), NUM (a number), LOC (a place).

    Args:
        split: `"train"` or `"test"`.
        data_dir: see `keras_shared.datasets.tfds_split.load_tfds`.

    Raises:
        DataError: for another split, or if it is not there and cannot be downloaded.

    Reference:
        Li & Roth 2002, "Learning Question Classifiers".
    """
    arrays, info = load_tfds("trec", check_split(split), data_dir)
    names = tuple(info.features["label-coarse"].names)
    return LabelledSentences(
        sentences_of(arrays["text"]), arrays["label-coarse"].astype(int), names
    )


TREC = Dataset("TREC questions", "Li & Roth 2002", "", LabelledSentences, load_trec)
