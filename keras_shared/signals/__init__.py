"""How signals pass through a model and gradients back: what initial weights decide."""

from keras_shared import start as start
from keras_shared.signals.callback import SignalLog as SignalLog
from keras_shared.signals.collecting import SignalError as SignalError
from keras_shared.signals.picture import draw_signals as draw_signals
from keras_shared.signals.report import LayerSignals as LayerSignals
from keras_shared.signals.report import SignalReport as SignalReport
from keras_shared.signals.report import signal_report as signal_report
from keras_shared.signals.ties import Tie as Tie
