"""Errors keep their class and what they hold, whatever is added to their message."""

import time

import pytest

from keras_shared.errors import KerasSharedError, advised, whole_reason
from keras_shared.serving import ServingError


def test_advice_leaves_an_error_as_it_is():
    with pytest.raises(ServingError) as caught, advised("Start it."):
        raise ServingError("NOT_FOUND", "no model m") from OSError("refused")
    assert caught.value.code == "NOT_FOUND" and isinstance(caught.value.__cause__, OSError)
    assert str(caught.value).startswith("NOT_FOUND: no model m.")
    assert str(caught.value).endswith(". Start it.")


def test_control_characters_in_any_message():
    assert str(KerasSharedError("\x1b[31m \u202e\udcff")) == r"\x1b[31m \u202e\udcff"


@pytest.mark.parametrize("sign", ["9", "[", "{{", "a.py:1", " ", "/a", "{'a': "])
def test_a_long_line_is_read_at_once(sign):
    begun = time.monotonic()
    assert len(whole_reason(ValueError(sign * 100_000))) < 1300
    assert time.monotonic() - begun < 5
