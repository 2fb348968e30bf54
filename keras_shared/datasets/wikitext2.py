from keras_shared.datasets.dataset import Dataset
from keras_shared.datasets.text_stream import TextStream
from keras_shared.datasets.tiny_shakespeare import load_stream


def load_wikitext2(split: str, data_dir: str | None = None) -> TextStream:
    """WikiText-2 as it is modelled by words: good articles of Wikipedia, rare words as `<unk>`.

    2,088,628 words train, 217,646 validate and 245,569 test, the ends of lines counted; 33,278
    different ones. TFDS has no such set to download: it is read where it has been prepared, as
    `wikitext2/1.0.0` with one text in each split. Any other text is a `.txt` file, see `from_text`.

    Args:
        split: `"train"` (with the text that validates) or `"test"`.
        data_dir: see `keras_shared.datasets.tfds_split.load_tfds`.

    Raises:
        DataError: for another split, or if it is not there.

    Reference:
        Merity et al. 2017, "Pointer Sentinel Mixture Models", section 4.3. Licence CC BY-SA.
    """
    return load_stream("wikitext2", split, data_dir)


WIKITEXT2 = Dataset(
    "WikiText-2", "Merity et al. 2017, of Wikipedia", "CC BY-SA", TextStream, load_wikitext2
)
