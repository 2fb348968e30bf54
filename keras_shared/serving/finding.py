from typing import NamedTuple

NOT_RUN = "was not run"  # nothing of a model
NOT_TRIED = "could not be tried"  # some of it
EARLIER = "earlier requests"  # which change what it answers
TOO_MUCH = "it takes more than"  # memory


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

    @property
    def untried(self) -> bool:
        """Whether some of the model, or all of it, was not run: without an error, who knows?"""
        return NOT_RUN in self.what or NOT_TRIED in self.what

    @property
    def dangerous(self) -> bool:
        """Whether a process that runs the model may go down with it."""
        return self.severity == "error" and TOO_MUCH in self.what
