"""Whether a weights file holds the source that a reader read when it was written."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

KEY = "tied_to"  # beside the reader's own variables


def written_of(source: keras.Layer) -> list[int]:
    """What a reader writes of its source: its name, and a digest of what it writes itself."""
    values: dict[str, Any] = {}
    source.save_own_variables(values)
    arrays = {key: keras.ops.convert_to_numpy(value) for key, value in values.items()}
    text = json.dumps({"name": source.name, "digest": _digest(arrays.items())})
    return [*text.encode()]  # as bytes: HDF5 takes numbers, and Keras' store nothing else


def holds_another(store: Any, source: keras.Layer | None) -> str | None:
    """The name of a layer in a file that stands where the reader's source would be found.

    Args:
        store: of a reader, as Keras gives it to `load_own_variables`.
        source: that the reader has found, if it has.

    Returns:
        The name, if the file holds layers of the source's name and none with its weights; None if
        it holds the source, or no layer of that name (as the file of a decoder alone), if `source`
        has these weights already, or if the store does not tell.
    """
    file = getattr(store, "h5_file", None)
    if KEY not in store.keys() or file is None or hasattr(store, "sharding_config"):  # noqa: SIM118
        return None
    written = [*store[KEY].tolist()]
    wanted = json.loads(bytes(written))
    digests: list[str] = []

    def look(_: str, group: Any) -> None:
        if group.attrs.get("name") == wanted["name"] and hasattr(group, "items") and len(group):
            digests.append(_digest((key, np.asarray(one)) for key, one in group.items()))

    file.visititems(look)
    if not digests or wanted["digest"] in digests:
        return None
    if source is not None and written_of(source) == written:
        return None
    return str(wanted["name"])


def _digest(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    found = hashlib.sha256()
    for key, array in sorted(arrays, key=lambda item: item[0]):
        found.update(f"{key} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()
