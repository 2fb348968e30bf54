import argparse

NAME = "list"
HELP = "list the published models and what they reach on test data"
EXAMPLE = "list"
LIGHT = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(options: argparse.Namespace) -> None:
    from keras_shared.presets.headline import headline
    from keras_shared.presets.names import list_presets
    from keras_shared.terminal import TextTable, console

    table = TextTable()
    for header in ("name", "model"):
        table.add_column(header, no_wrap=True)
    table.add_column("parameters")
    table.add_column("on test data, or where it lies", overflow="fold")
    for name, preset in list_presets().items():
        metrics = preset["metrics"]
        parameters = f"{metrics['parameters']['trainable']:,}" if metrics else ""
        reached = headline(metrics) if metrics else f"{preset['path']}, your own"
        table.add_row(name, preset["class_name"] or "", parameters, reached)
    console().print(table)
