import argparse

NAME = "predict"
HELP = "ask a published model about images"
EXAMPLE = "predict lenet5_mnist digit.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME|PATH", help="a preset's name or a folder")
    parser.add_argument("files", metavar="FILE", nargs="+", help="PNG or JPEG; .npy for vectors")


def run(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from keras_shared.presets.names import class_name
    from keras_shared.serving.answering import answer, as_text
    from keras_shared.tasks import TASKS
    from keras_shared.zoo import MODELS

    answers = answer(options.model, [[file] for file in options.files])
    model = MODELS.get(class_name(options.model) or "")
    task = TASKS.get(model.task) if model else None
    table = Table("file", "output", "value")
    for file, outputs in zip(options.files, answers, strict=True):
        if task is not None:
            table.add_row(escape(file), "answer", escape(task.show(outputs)), style="bold")
        for name, value in outputs.items():
            table.add_row(escape(file), escape(name), escape(as_text(value)))
    Console().print(table)
