"""How requests are answered together: TF Serving's batching parameters, as text."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from keras_shared.errors import KerasSharedError, boundary

OF_A_VERSION = "batching_params.pbtxt"  # in its folder: servables/tensorflow/bundle_factory_util.cc
WRAPPERS = {int: "Int64Value", str: "StringValue", bool: "BoolValue"}


class BatchingError(KerasSharedError, ValueError):
    """Batching parameters that cannot be; the message says which."""


@dataclasses.dataclass(frozen=True)
class Batching:
    """TF Serving's BatchingParameters, with its defaults."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0
    thread_pool_name: str = ""

    @property
    def rows(self) -> int:
        """That are run at once, at most."""
        most = self.max_execution_batch_size if self.enable_large_batch_splitting else 0
        return most or self.max_batch_size


@functools.cache
def _message() -> Any:
    """The class of BatchingParameters, which tensorflow-serving-api leaves out.

    Its numbers of fields are our own: as text, names alone count.
    """
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name="BatchingParameters")
    for number, field in enumerate(dataclasses.fields(Batching), 1):
        kind = type(field.default)
        added = message.field.add(name=field.name, number=number, label="LABEL_OPTIONAL")
        if kind is tuple:
            added.label, added.type = added.LABEL_REPEATED, added.TYPE_INT64
        elif field.name == "pad_variable_length_inputs":
            added.type = added.TYPE_BOOL
        else:
            added.type_name = f".google.protobuf.{WRAPPERS[kind]}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(message.name))


def batching_of(text: str, name: str = "The text") -> Batching:
    """Read batching parameters.

    Args:
        text: a BatchingParameters of servables/tensorflow/session_bundle_config.proto.
        name: of the file, for messages.

    Raises:
        BatchingError: for a parameter that does not exist, or a size that cannot be.

    Example:
        >>> from keras_shared.serving.batching_parameters import batching_of
        >>> batching_of("max_batch_size { value: 8 } allowed_batch_sizes: [4, 8]").rows
        8
    """
    names = [field.name for field in dataclasses.fields(Batching)]
    advice = f"Expected are parameters among {names}, such as: max_batch_size {{ value: 8 }}"
    with boundary(f"{name} holds no batching parameters", BatchingError, advice):
        found = text_format.Parse(text, _message()()).ListFields()
    given: dict[str, Any] = {field.name: getattr(value, "value", value) for field, value in found}
    sizes = [*given.get("allowed_batch_sizes", ())]
    given["allowed_batch_sizes"] = tuple(sizes)
    read = Batching(**given)
    if sizes and (sizes != sorted({*sizes}) or sizes[-1] != read.rows or sizes[0] < 1):
        raise BatchingError(
            f"{name}: allowed_batch_sizes ascend, and the last is {read.rows}, the largest that is "
            f"run. Received: {sizes}"
        )
    least = {"max_batch_size": 1, "num_batch_threads": 1, "max_enqueued_batches": 1}
    if low := {k: v for k, v in given.items() if isinstance(v, int) and v < least.get(k, 0)}:
        raise BatchingError(f"{name}: batching parameters that are too small: {low}")
    return read


def read_batching(file: str | os.PathLike[str]) -> Batching:
    """As `batching_of` a file's text.

    Raises:
        BatchingError: also if it cannot be read.
    """
    with boundary(f"{os.fspath(file)} cannot be read", BatchingError):
        text = pathlib.Path(file).read_text("utf-8")
    return batching_of(text, os.fspath(file))
