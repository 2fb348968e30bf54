"""A Keras model as what other programs run: SavedModel, ONNX, LiteRT; each weight stored once."""

from keras_shared.exporting.checks import check_loaded_model as check_loaded_model
from keras_shared.exporting.checks import check_saved_model as check_saved_model
from keras_shared.exporting.formats import FORMATS as FORMATS
from keras_shared.exporting.formats import export as export
from keras_shared.exporting.saved_model import replace_saved_model as replace_saved_model
from keras_shared.exporting.saved_model import write_saved_model as write_saved_model
from keras_shared.exporting.signatures import examples as examples
from keras_shared.exporting.signatures import signatures_of as signatures_of
