import argparse
import csv
import io
import json
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from keras_shared.cli.asked_files import add_invert, files_in, suffixes, warn_of_ground
from keras_shared.cli.options import within

if TYPE_CHECKING:
    import numpy as np

NAME = "predict"
HELP = "ask a published model about pictures or texts"
EXAMPLE = "predict lenet5_mnist digit.png"


# name, default, least, most, what it means; as of `LanguageModel.generate`
WRITING: tuple[tuple[str, float, float, float, str], ...] = (
    ("max_new_tokens", 100, 1, 1000, "tokens to add"),
    ("temperature", 0.8, 0.0, 1e6, "0 for the likeliest alone"),
    ("top_k", 0, 0, 2**31 - 1, "draw among so many; 0 for all"),
    ("seed", 1, 0, 2**31 - 1, "another one gives another text"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME|PATH", help="a preset's name or a folder")
    parser.add_argument(
        "files", metavar="FILE", nargs="*",
        help="PNG, JPEG, GIF, BMP or WebP; a folder of them; .npy for vectors; - for a pipe",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=_count, metavar="N", help="so many of the classes, or of the next tokens"
    )
    parser.add_argument(
        "--text", metavar="TEXT", action="append", default=[],
        help="in place of files, a text to classify or to go on with; may be repeated",
    )  # fmt: skip
    for name, default, least, most, meaning in WRITING:
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=within(least, most), metavar="N", default=default,
            help=f"of a text to go on with: {meaning} (default: {default})",
        )  # fmt: skip
    add_invert(parser)
    for kind in ("json", "csv"):
        parser.add_argument(
            f"--{kind}", nargs="?", const="-", metavar="FILE",
            help=f"{kind.upper()} in place of the table, to a file or to the terminal",
        )  # fmt: skip
    parser.add_argument("--out", metavar="DIR", help="write reconstructions as PNG files there")


def run(options: argparse.Namespace) -> None:
    from keras_shared.errors import UsageError, boundary, printable
    from keras_shared.lookup import find
    from keras_shared.presets.names import class_name, entry_names, version_dir
    from keras_shared.serving.answering import AnswerError, answer, answer_texts
    from keras_shared.tasks import TASKS, Shown, Task
    from keras_shared.zoo import MODELS

    for target in (options.json, options.csv):
        _refuse_picture(target)
    version_dir(options.model)  # refuses a model that is not there, before files are read
    if bool(options.files) == bool(options.text):
        raise UsageError("predict takes files, or texts with --text: one of the two.")
    files = [file for given in options.files for file in files_in(given)]
    sources = contents(files)
    if options.text:
        writing = {name: getattr(options, name) for name, *_ in WRITING}
        # a number of next tokens is asked for: name them, write nothing
        answers = answer_texts(options.model, options.text, writing if options.top is None else {})
        files = options.text
        _warn_of_unknown(files, answers)
    else:
        answers = answer(options.model, [[source] for source in sources], options.invert)
    kind = class_name(options.model) or ""
    model: Any = MODELS.get(kind) or (_own_class(options.model) if options.modules else None)
    with boundary(f"{options.model} does not answer as {kind} does", AnswerError, "Publish again."):
        if sources and getattr(model, "bright_on_dark", False) and _names_digits(answers):
            learnt = "" if options.model in entry_names() else kind
            warn_of_ground(files, sources, True, options.invert, learnt)
        if model and "scores" in answers[0]:
            _add_probabilities(answers, model.default_loss(**stored_arguments(options.model)))
        files, answers = _one_by_one(files, answers)
        task = find(model.task, TASKS, "task", kind=Task) if model else None
        show = task.show if task else lambda outputs, top: Shown("", {})
        shown = [show(outputs, options.top or 1) for outputs in answers]
    if options.out:
        for target in _write_pictures(files, answers, pathlib.Path(options.out)):
            print(printable(str(target)), file=sys.stderr)
    asked = "input" if options.text else "file"
    plain = [
        {asked: file, **{k: _plain(v) for k, v in outputs.items()}, **facts}
        for file, outputs, (_, facts) in zip(files, answers, shown, strict=True)
    ]
    if options.json:
        _write(options.json, json.dumps(plain, indent=1))
    if options.csv:
        _write(options.csv, _as_csv(plain))
    if options.json or options.csv:
        return
    if options.text and "text" in answers[0]:  # of several lines
        print("\n\n".join(printable(text) for text, _ in shown))
    else:
        _print(asked, files, answers, [text for text, _ in shown])


def contents(files: list[str]) -> "list[str | bytes]":
    """The files, with what is piped in where one is called `-`."""
    from keras_shared.errors import UsageError
    from keras_shared.files.bounded import read_stdin
    from keras_shared.files.limits import MOST_PICTURE

    if files.count("-") > 1:
        raise UsageError("- stands for the standard input, which can be read once alone.")
    return [read_stdin(MOST_PICTURE) if file == "-" else file for file in files]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1. Received: {text!r}")
    return int(text)


def _refuse_picture(target: str | None) -> None:
    """`--json a.png` would write over the picture that it was meant to read."""
    from keras_shared.errors import UsageError

    if target and pathlib.Path(target).suffix.lower() in suffixes():
        raise UsageError(
            f"{target} follows --json or --csv, which would write to it. Put pictures before these."
        )


def stored_arguments(model: str) -> dict[str, Any]:
    """The constructor's arguments of a published model."""
    from keras_shared.presets.names import INNER_MODEL, stored_config, version_dir

    return dict(stored_config(version_dir(model) / INNER_MODEL)["config"])


def _own_class(model: str) -> Any:
    """The class of a published model, from a module that was imported; None if none has it."""
    import keras

    from keras_shared.presets.names import INNER_MODEL, stored_config, version_dir

    name = stored_config(version_dir(model) / INNER_MODEL).get("registered_name")
    found = keras.saving.get_registered_object(name)
    return found if hasattr(found, "task") else None


def _names_digits(answers: "list[dict[str, np.ndarray]]") -> bool:
    """Whether the classes are the digits, and not those of a data set of one's own."""
    return {name.decode() for name in answers[0]["classes"][0]} == set("0123456789")


def _warn_of_unknown(texts: list[str], answers: "list[dict[str, np.ndarray]]") -> None:
    from keras_shared.errors import printable

    for text, outputs in zip(texts, answers, strict=True):
        unknown = int(outputs.get("unknown_tokens", [0])[0])
        if unknown:
            print(
                f"keras-shared: {unknown} token(s) of {printable(repr(text))} are not in the "
                "model's vocabulary: it takes each for an unknown one, and its answer means less.",
                file=sys.stderr,
            )


def _one_by_one(
    files: list[str], answers: "list[dict[str, np.ndarray]]"
) -> "tuple[list[str], list[dict[str, np.ndarray]]]":
    """The rows of a batch, which a .npy file may hold, as answers of their own."""
    names, rows = [], []
    for file, outputs in zip(files, answers, strict=True):
        sizes = {len(value) if value.ndim else 1 for value in outputs.values()}
        if len(sizes) > 1 or sizes <= {0, 1}:
            names.append(file)
            rows.append(outputs)
            continue
        for i in range(sizes.pop()):
            names.append(f"{file}[{i}]")
            rows.append({key: value[i : i + 1] for key, value in outputs.items()})
    return names, rows


def _add_probabilities(answers: "list[dict[str, np.ndarray]]", loss: str) -> None:
    from keras_shared.tasks.classification import class_probabilities

    for outputs in answers:
        probabilities = class_probabilities(outputs["scores"], loss)
        if probabilities is not None:
            outputs["probabilities"] = probabilities


def _plain(value: "np.ndarray") -> Any:
    """An output as JSON holds it: without the batch where that is one."""
    listed = value[0] if value.ndim and len(value) == 1 else value
    items = listed.tolist() if hasattr(listed, "tolist") else listed
    return _decoded(items)


def _decoded(items: Any) -> Any:
    if isinstance(items, list):
        return [_decoded(item) for item in items]
    return items.decode(errors="backslashreplace") if isinstance(items, bytes) else items


def _as_csv(plain: list[dict[str, Any]]) -> str:
    """One row a file; lists of numbers take a column for each."""
    rows = [_flat(row) for row in plain]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(k for row in rows for k in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().replace("\r\n", "\n").rstrip("\n")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key == "top":
            for rank, (label, probability) in enumerate(value.items(), 1):
                if rank > 1:
                    flat |= {f"label_{rank}": label, f"probability_{rank}": probability}
        elif isinstance(value, list):
            if not key.endswith("classes"):
                flat |= {f"{key}_{i}": item for i, item in enumerate(value)}
        else:
            flat[key] = value
    return flat


def _write(target: str, text: str) -> None:
    from keras_shared.errors import printable
    from keras_shared.files.atomic import replace_text

    if target == "-":
        print(printable(text))
    else:
        replace_text(target, f"{text}\n")


def _write_pictures(
    files: list[str], answers: "list[dict[str, np.ndarray]]", folder: pathlib.Path
) -> list[pathlib.Path]:
    """Reconstructions that make a square image, each named after its file."""
    import math

    import numpy as np

    from keras_shared.errors import KerasSharedError
    from keras_shared.files.atomic import make_folder, replacing
    from keras_shared.files.pictures import png_bytes

    written: list[pathlib.Path] = []
    for file, outputs in zip(files, answers, strict=True):
        vectors = outputs.get("reconstruction")
        side = 0 if vectors is None else math.isqrt(vectors.shape[1])
        if vectors is None or side * side != vectors.shape[1]:
            raise KerasSharedError(
                f"--out writes square reconstructions, and {file} gave {list(outputs)}. Leave it "
                "out, or ask an autoencoder of square images."
            )
        make_folder(folder)
        for vector in np.clip(np.round(vectors * 255), 0, 255).astype("uint8"):
            stem, count = pathlib.Path(file).stem, 1
            target = folder / f"{stem}_reconstruction.png"
            while target in written:
                count += 1
                target = folder / f"{stem}_reconstruction_{count}.png"
            with replacing(target) as scratch:
                scratch.write_bytes(png_bytes(vector.reshape(side, side, 1)))
            written.append(target)
    return written


def _print(
    asked: str, files: list[str], answers: "list[dict[str, np.ndarray]]", shown: list[str]
) -> None:
    from keras_shared.serving.answering import as_text
    from keras_shared.terminal import TextTable, console

    table = TextTable(asked, "output", "value")
    for file, outputs, text in zip(files, answers, shown, strict=True):
        if text:
            name = "label" if "label" in outputs else "answer"
            table.add_row(file, name, text, style="bold")
        for name, value in outputs.items():
            known = name.endswith(("label", "classes"))  # of one task, or of each of several
            if not text or not (known or name in ("probabilities", "text", "tokens")):
                table.add_row(file, name, as_text(value))
    console().print(table)
