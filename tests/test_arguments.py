"""Arguments in Python have the types and limits that they have in a recipe."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import PositiveFloat, PositiveInt

from keras_shared.arguments import check_arguments
from keras_shared.batching import class_batches
from keras_shared.datasets import load_digits
from keras_shared.initializers import TiedScaling, tied_scale
from keras_shared.losses import (
    ContrastiveLoss,
    NPairLoss,
    PrototypicalLoss,
    RBFLoss,
    TripletLoss,
)
from keras_shared.zoo import TiedLanguageModel


def example(
    times: PositiveInt = 1, share: PositiveFloat | None = None, sizes: Sequence[PositiveInt] = ()
):
    check_arguments(example, times=times, share=share, sizes=sizes)


@pytest.mark.parametrize(
    "values",
    [
        {"times": 3, "share": 0.5, "sizes": (1, 2)},
        {"times": np.int64(3), "share": np.float32(0.5), "sizes": [1, np.int32(2)]},
        {"share": 1, "sizes": np.array([1, 2])},
        {"share": np.array(0.5)},
    ],
)
def test_what_is_right_in_any_form(values):
    example(**values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"times": 0}, "`times`: expected it to be greater than 0. Received: times=0"),
        ({"times": 2.5}, "`times`: expected it to be a valid integer. Received: times=2.5"),
        ({"times": "3"}, "`times`: expected it to be a valid integer. Received: times='3'"),
        ({"times": True}, "`times`: expected it to be a valid integer. Received: times=True"),
        ({"share": math.nan}, "`share`: expected it to be a finite number. Received: share=nan"),
        ({"share": np.float32("inf")}, "`share`: expected it to be a finite number"),
        ({"share": []}, "`share`: expected it to be a valid number"),
        ({"sizes": [1, 0]}, r"`sizes`\[1\]: expected it to be greater than 0. Received: sizes=\["),
        ({"sizes": None}, "`sizes`: expected it to be .*Received: sizes=None"),
    ],
)
def test_what_is_wrong_is_named(values, said):
    with pytest.raises(ValueError, match=said):
        example(**values)


def language_model(**arguments):
    return TiedLanguageModel(list("ab"), **{"units": 4, "num_layers": 1, **arguments})


def batches(shear):
    return class_batches(load_digits("train"), distortion=(0.0, shear, 0.0, 0.0))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, "x", []])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (
            lambda v: TiedLanguageModel(list("ab"), units=4, num_layers=1, projection=v),
            "projection",
        ),
        (lambda v: language_model(dropout=v), "dropout"),
        (lambda v: language_model(units=v), "units"),
        (lambda v: tied_scale("added", 2, 2, v), "times"),
        (lambda v: TiedScaling("residual", times=v), "times"),
        (lambda v: TiedScaling(gain=v), "gain"),
        (
            lambda v: class_batches(load_digits("train"), distortion=(0.0, v, 0.0, 0.0)),
            "distortion",
        ),
        (lambda v: ContrastiveLoss(v), "margin"),
        (lambda v: TripletLoss(v), "margin"),
        (lambda v: NPairLoss(v), "temperature"),
        (lambda v: PrototypicalLoss(v), "shots"),
        (lambda v: PrototypicalLoss(temperature=v), "temperature"),
    ],
)
def test_what_is_no_number_is_refused_everywhere(call, name, wrong):
    with pytest.raises(ValueError, match=f"`{name}`.* Received: {name}="):
        call(wrong)


@pytest.mark.parametrize(
    "call",
    [
        lambda: language_model(projection=-1.0),
        lambda: TiedScaling("added", times=2.5),
        lambda: PrototypicalLoss(2.5),
        lambda: class_batches(load_digits("train"), distortion=(0.0, 0.0, 0.4)),
        lambda: RBFLoss(j="1"),
        lambda: RBFLoss(j=None),
        lambda: RBFLoss(j=math.nan),
        lambda: RBFLoss(j=-math.inf),
    ],
)
def test_numbers_of_another_kind(call):
    with pytest.raises(ValueError, match="expected (it to be|a value there).* Received: "):
        call()
