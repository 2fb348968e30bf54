"""The same recipe several ways, side by side."""

from keras_shared.comparing.runs import compare as compare
from keras_shared.comparing.statistics import interval as interval
from keras_shared.comparing.statistics import summarise as summarise
