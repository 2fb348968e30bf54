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

    table = TextTable("name, model", "parameters", "on test data, or where it lies")
    for name, preset in list_presets().items():
        metrics = preset["metrics"]
        parameters = f"{metrics['parameters']['trainable']:,}" if metrics else ""
        reached = headline(metrics) if metrics else f"{preset['path']}, your own"
        lines = [name, *([f"  {preset['class_name']}"] if preset["class_name"] else [])]
        table.add_row(lines, parameters, reached)
    console().print(table)
