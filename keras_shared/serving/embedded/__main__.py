"""The process that serves: `python -m keras_shared.serving.embedded`, with TF Serving's flags."""

import gc
import signal
import sys
import threading

from keras_shared.errors import KerasSharedError, printable
from keras_shared.quiet import import_quietly
from keras_shared.serving.embedded.options import Options


def main() -> int:
    """Serve until SIGINT or SIGTERM; then end what was begun."""
    options, ended = Options.of(None), threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while models load, there is nothing to end
    import_quietly("tensorflow")
    import tensorflow as tf

    from keras_shared.serving.embedded.server import running

    gc.set_threshold(50_000, 20, 20)  # a request in JSON makes thousands of lists
    tf.get_logger().setLevel("ERROR")  # nobody can mend what its warnings say of a graph
    try:
        with running(options):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: ended.set())
            ended.wait()
    except KerasSharedError as error:
        print(printable(f"keras-shared: {error}"), file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
