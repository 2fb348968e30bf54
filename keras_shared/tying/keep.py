from typing import Any, Literal, get_args

Keep = Literal["source", "reader"]


def check_keep(keep: Any) -> None:
    """See that `keep` says whose values stay where those of a reader and its source differ.

    Raises:
        ValueError: for anything but "source", "reader" and None.

    Example:
        >>> from keras_shared.tying.keep import check_keep
        >>> check_keep("readers")
        Traceback (most recent call last):
        ...
        ValueError: `keep` must be 'source', 'reader' or None. Received: keep='readers'
    """
    if keep is not None and (not isinstance(keep, str) or keep not in get_args(Keep)):
        raise ValueError(f"`keep` must be 'source', 'reader' or None. Received: keep={keep!r}")
