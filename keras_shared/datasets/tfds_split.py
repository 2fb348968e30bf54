import contextlib
import functools
import os
import urllib.error
import urllib.request
from typing import Any

import numpy as np

from keras_shared.datasets.dataset import DataError
from keras_shared.errors import boundary


def load_tfds(name: str, split: str, data_dir: str | None) -> tuple[dict[str, np.ndarray], Any]:
    """A whole split as NumPy arrays, in the order of its files, and the data set's info.

    Asked again in the same process, it gives the same arrays: they are not to be written to.

    A data set that is prepared under `data_dir` is read from there; one that is not is
    downloaded by TFDS.

    Args:
        name: name of the TFDS data set.
        split: name of its split.
        data_dir: folder of prepared data sets; else the variable TFDS_DATA_DIR, else TFDS' own.

    Raises:
        DataError: if the data set is not there and cannot be downloaded.
    """
    return _read(name, split, data_dir or os.environ.get("TFDS_DATA_DIR"))


@functools.lru_cache(maxsize=2)  # a comparison reads the same two splits for each of its runs
def _read(name: str, split: str, where: str | None) -> tuple[dict[str, np.ndarray], Any]:
    import tensorflow_datasets as tfds  # slow to import, needed for these data sets alone

    where = where or tfds.core.constants.DATA_DIR
    what = f"The data set '{name}' is not in {where}, and TFDS could not prepare it there"
    advice = (
        "Name a folder that holds it with --data-dir or TFDS_DATA_DIR, or use a recipe with the "
        "embedded data set: data.name = 'digits'."
    )
    with boundary(what, DataError, advice):  # whatever its download, disk or checksums raise
        builder = tfds.builder(name, data_dir=where)
        if not builder.is_prepared():
            _reach(next(iter(builder.url_infos)))
            builder.download_and_prepare()
        dataset = builder.as_dataset(split=split, shuffle_files=False, batch_size=-1)
    return {key: np.asarray(value) for key, value in tfds.as_numpy(dataset).items()}, builder.info


def _reach(url: str) -> None:
    """Fail within seconds where there is no network: TFDS itself retries for minutes."""
    head = urllib.request.Request(url, method="HEAD")
    answers = contextlib.suppress(urllib.error.HTTPError)  # what it has is between TFDS and it
    with boundary(f"{url} cannot be reached", ConnectionError), answers:
        urllib.request.urlopen(head, timeout=10).close()
