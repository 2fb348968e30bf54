"""How a layer reads a weight that another layer owns, and finds it again after every operation."""

from keras_shared.tying.bind_ties import bind_ties as bind_ties
from keras_shared.tying.bind_ties import readers_of as readers_of
from keras_shared.tying.check_ties import check_ties as check_ties
from keras_shared.tying.effective_weight import effective_weight as effective_weight
from keras_shared.tying.effective_weight import weight_shape as weight_shape
from keras_shared.tying.keras_private import drop_layer as drop_layer
from keras_shared.tying.keras_private import flatten_layers as flatten_layers
from keras_shared.tying.keras_private import run_graph as run_graph
from keras_shared.tying.source_reference import SourceReference as SourceReference
from keras_shared.tying.tie_error import TieError as TieError
from keras_shared.tying.tied_reader import TiedReader as TiedReader
from keras_shared.tying.untie import tie as tie
from keras_shared.tying.untie import untie as untie
