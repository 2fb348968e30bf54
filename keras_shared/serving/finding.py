from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that `check` found.

    Attributes:
        severity: "error" if TF Serving cannot load the model or fails requests; "warning" for
            what makes it slower or harder to use; "note" for a fact.
        what: what was found.
        remedy: what to do.

    Example:
        >>> from keras_shared.serving import Finding
        >>> Finding("warning", "no warm-up requests", "publish the model again").severity
        'warning'
    """

    severity: str
    what: str
    remedy: str
