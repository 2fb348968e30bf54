"""Imported before all else by packages that need Keras, which starts without TensorFlow's notes."""

from keras_shared.quiet import import_quietly

import_quietly("keras")
