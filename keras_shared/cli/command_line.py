import argparse
import importlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import keras_shared
from keras_shared.cli import (
    check,
    compare,
    demo,
    enrol,
    evaluate,
    fine_tune,
    identify,
    inspect,
    list_,
    manifests,
    pictures,
    predict,
    publish,
    recipe,
    serve,
    signals,
    train,
    verify,
)
from keras_shared.cli.quiet import import_quietly
from keras_shared.errors import (
    KerasSharedError,
    UsageError,
    boundary,
    printable,
    whole_reason,
)
from keras_shared.lookup import needed

COMMANDS = (
    list_, train, evaluate, publish, fine_tune, predict, verify, enrol, identify, inspect, check,
    serve, manifests, compare, signals, recipe, pictures, demo,
)  # fmt: skip

DEBUG = "show the traceback of an error"
_EPILOG = """\
examples:
  keras-shared demo                          the whole way, without network
  keras-shared list                          published models, what they reach
  keras-shared train lenet5_mnist            repeat one from nothing
  keras-shared recipe lenet5_mnist > my.toml a recipe to start from
  keras-shared train my.toml --set training.epochs=5 --out runs/mine
  keras-shared evaluate runs/mine            metrics.json, card and plots
  keras-shared publish runs/mine             into saved_models/<name>/
  keras-shared fine-tune siamese_omniglot my/recipe.toml
  keras-shared inspect siamese_omniglot --picture sharing.png
  keras-shared compare tied_autoencoder_mnist --seeds 5
  keras-shared signals lenet5_mnist          which layers are dead at first?
  keras-shared pictures                      digit.png, and three characters
  keras-shared predict lenet5_mnist digit.png
  keras-shared verify character_1.png character_2.png
  keras-shared enrol people.npz anna anna.png
  keras-shared identify people.npz who.png
  keras-shared check lenet5_mnist            what TF Serving would do with it
  keras-shared serve lenet5_mnist            ask it over REST and gRPC
  keras-shared manifests lenet5_mnist --to deploy/

MNIST, Fashion-MNIST and Omniglot come through TensorFlow Datasets: from
--data-dir or the variable TFDS_DATA_DIR if they are prepared there, else by
download."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Returns:
        The exit status: 0 if done, 2 for a wrong call, 130 after Ctrl-C and 141 if nobody reads
        what it prints, as shells count these, 1 for the rest.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know every sign
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    given = sys.argv[1:] if arguments is None else arguments
    options = argparse.Namespace(trains=False, debug=False, modules=[])
    as_python_does = warnings.formatwarning
    try:
        if not given:
            parser.print_help()
            return 0
        options = parser.parse_args(given)
        if os.getcwd() not in sys.path:  # noqa: PTH109
            sys.path.append(os.getcwd())  # noqa: PTH109  (models and data sets of one's own)
        if not options.debug:
            warnings.formatwarning = _plain_warning
        if not options.light:
            import_quietly()
        for module in options.modules:
            with boundary(f"--import {module}: it cannot be imported", KerasSharedError):
                importlib.import_module(module)
        status: int = options.execute(options) or 0
        print(end="", flush=True)  # a full disk is known now
        return status
    except KeyboardInterrupt:
        again = "; the same command goes on from the last whole epoch" if options.trains else ""
        print(f"stopped{again}", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except Exception as error:
        if options.debug:
            raise
        ours = isinstance(error, KerasSharedError)
        said = f"{error}" if ours else f"{whole_reason(error)} (--debug shows the traceback)"
        print(f"keras-shared: {printable(said.strip())}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    finally:
        warnings.formatwarning = as_python_does
        _drop_stdout()


def _plain_warning(message: Warning | str, *place: Any, **line: Any) -> str:
    """A line for whoever did not write the program."""
    return f"keras-shared: warning: {printable(str(message))}\n"


def _drop_stdout() -> None:
    """Leave out what cannot be printed, which Python would try once more at its end."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


class _CommandParser(_Parser):
    """Takes files behind the options too, and says itself which words it does not know."""

    _again = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, left = super().parse_known_args(args, namespace)
        if left and not self._again:
            self._again = True  # of Python 3.11, it calls this function
            options, left = self.parse_intermixed_args(args, namespace), []
            self._again = False
        return options, left


class _PrintCompletion(argparse.Action):
    """Print the script of a shell, and end."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        print(needed("completion", "shtab").complete(parser, given[1]))
        parser.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="keras-shared",
        description="Train, evaluate, publish and ask Keras models whose layers share weights.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # else --data would be taken for --data-dir where there is no --data
    )
    parser.add_argument("--version", action="version", version=keras_shared.__version__)
    parser.add_argument("--debug", action="store_true", help=DEBUG)
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=("bash", "zsh", "tcsh"),
        help="a script that completes commands and options in a shell",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_CommandParser)
    for command in COMMANDS:
        sentence = command.HELP[0].upper() + command.HELP[1:]
        sub = commands.add_parser(
            command.NAME,
            help=command.HELP,
            description=sentence if sentence.endswith("?") else f"{sentence}.",
            epilog=f"example:\n  keras-shared {command.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.set_defaults(
            execute=command.run,
            light=getattr(command, "LIGHT", False),
            trains=getattr(command, "TRAINS", False),
        )
        # also after the command; SUPPRESS keeps the value given before it
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=DEBUG)
        sub.add_argument(
            "--import", dest="modules", metavar="MODULE", action="append", default=[],
            help="a Python module of your own, imported first: it registers your models and layers",
        )  # fmt: skip
        command.add_arguments(sub)
    return parser
