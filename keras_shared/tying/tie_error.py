class TieError(ValueError):
    """A tie cannot hold: the message names the reader, the source, and what to do."""
