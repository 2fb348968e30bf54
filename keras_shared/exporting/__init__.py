"""A Keras model as what other programs run: SavedModel, ONNX, LiteRT; each weight stored once."""

from keras_shared import start as start
from keras_shared.exporting.formats import export as export
from keras_shared.exporting.from_safetensors import load_safetensors as load_safetensors
