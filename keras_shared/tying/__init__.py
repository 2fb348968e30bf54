"""How a layer reads a weight that another layer owns, and finds it again after every operation."""

import keras_shared.start  # noqa: F401
from keras_shared.tying.bind_ties import bind_ties as bind_ties
from keras_shared.tying.bind_ties import readers_of as readers_of
from keras_shared.tying.check_ties import check_ties as check_ties
from keras_shared.tying.effective_weight import effective_weight as effective_weight
from keras_shared.tying.tie_error import TieError as TieError
from keras_shared.tying.tied_reader import TiedReader as TiedReader
from keras_shared.tying.untie import tie as tie
from keras_shared.tying.untie import untie as untie
