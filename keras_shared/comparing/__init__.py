"""The same recipe several ways, side by side."""

from keras_shared import start as start
from keras_shared.comparing.runs import compare as compare
