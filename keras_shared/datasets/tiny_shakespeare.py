from keras_shared.datasets.dataset import Dataset
from keras_shared.datasets.splitting import check_split
from keras_shared.datasets.text_stream import TextStream
from keras_shared.datasets.tfds_split import load_tfds


def load_tiny_shakespeare(split: str, data_dir: str | None = None) -> TextStream:
    """40,000 lines of Shakespeare's plays, 1,115,394 characters, through TFDS.

    The splits are TFDS' own: the first 90 % of the characters train, the next 5 % validate, the
    last 5 % test. nanoGPT trains on the same 90 %, and validates on all of the other 10 %.

    Args:
        split: `"train"` (with the text that validates) or `"test"`.
        data_dir: see `keras_shared.datasets.tfds_split.load_tfds`.

    Raises:
        DataError: for another split, or if it is not there and cannot be downloaded.

    Reference:
        Karpathy 2015, "The Unreasonable Effectiveness of Recurrent Neural Networks"; github.com/
        karpathy/char-rnn (MIT). The plays are in the public domain.
    """
    return load_stream("tiny_shakespeare", split, data_dir)


def load_stream(name: str, split: str, data_dir: str | None) -> TextStream:
    """A set of TFDS whose splits train, validation and test hold one text each."""

    def text(part: str) -> str:
        arrays, _ = load_tfds(name, part, data_dir)
        return str(arrays["text"][0].decode("utf-8"))

    return TextStream(text(check_split(split)), text("validation") if split == "train" else None)


TINY_SHAKESPEARE = Dataset(
    "tiny Shakespeare", "Karpathy 2015, of Shakespeare's plays", "public domain", TextStream,
    load_tiny_shakespeare,
)  # fmt: skip
