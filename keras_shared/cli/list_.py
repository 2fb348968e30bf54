import argparse

NAME = "list"
HELP = "list the published models and what they reach on test data"
EXAMPLE = "list"
LIGHT = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from keras_shared.presets.headline import headline
    from keras_shared.presets.names import list_presets

    typed = (Column(header, no_wrap=True) for header in ("name", "model"))
    reaches = Column("on test data, or where it lies", overflow="fold")
    table = Table(*typed, "parameters", reaches)
    for name, preset in list_presets().items():
        metrics = preset["metrics"]
        parameters = f"{metrics['parameters']['trainable']:,}" if metrics else ""
        reached = headline(metrics) if metrics else f"{preset['path']}, your own"
        table.add_row(*map(escape, (name, preset["class_name"] or "", parameters, reached)))
    Console().print(table)
