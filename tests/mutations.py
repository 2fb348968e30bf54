"""Bytes as faults make them: cut, flipped, overwritten, repeated, replaced."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# KERAS_SHARED_FUZZ_EXAMPLES=100000 for a long search
EXAMPLES = int(os.environ.get("KERAS_SHARED_FUZZ_EXAMPLES", "60"))
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
HOSTILE = (
    b"", b"\0" * 64, b"\xff" * 64, b"[" * 100_000, b'{"a":' * 20_000, b"9" * 100_000, b"nan", b"-1",
    b"1e999", b"null", b"[]", b"{}", b'""', b"\x80\x04\x95", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n",
    b"\x93NUMPY", b"\x89HDF\r\n\x1a\n", b"<html>", b"\x1b[31m[red]x[/b]", "é\u202e\u0661".encode(),
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` after one to four faults, or something else in its place."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(HOSTILE) | st.binary(max_size=2000))
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(changed)))
        length = draw(st.integers(1, 64))
        kind = draw(st.sampled_from(("cut", "flip", "zero", "write", "drop", "repeat", "insert")))
        if kind == "cut":
            del changed[at:]
        elif kind == "flip" and at < len(changed):
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "zero":
            changed[at : at + length] = bytes(len(changed[at : at + length]))
        elif kind == "write":
            changed[at : at + length] = draw(st.binary(min_size=1, max_size=length))
        elif kind == "drop":
            del changed[at : at + length]
        elif kind == "repeat":
            changed[at:at] = changed[at : at + length] * draw(st.sampled_from((1, 2, 1000)))
        elif kind == "insert":
            changed[at:at] = draw(st.sampled_from(HOSTILE))
    return bytes(changed)
