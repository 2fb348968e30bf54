"""The demo, as far as it can fail."""

import pytest

from keras_shared.demo import _ask


@pytest.mark.slow
def test_it_says_why_tensorflow_alone_cannot_ask(tmp_path):
    with pytest.raises(RuntimeError, match="(?s)ended with status 1: .*SavedModel file does not"):
        _ask(tmp_path, [tmp_path / "a.png"] * 3)
