"""The command `keras-shared`, one command a file.

A new one is a file here and a line in `COMMANDS` of command_line.py.

TensorFlow and Keras are imported when a command runs, so that `--help` answers at once.
"""

from keras_shared.cli.command_line import main as main
