import argparse
import json

NAME = "inspect"
HELP = "what a model shares: each weight once, with its readers"
EXAMPLE = "inspect siamese_omniglot --picture sharing.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME|PATH", help="a preset's name or a folder, or .keras")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON")
    parser.add_argument("--picture", metavar="FILE", help="draw it as .png or .svg")
    parser.add_argument("--html", metavar="FILE", help="write it as a page: a tree to point at")


def run(options: argparse.Namespace) -> None:
    from keras_shared.files.atomic import replace_text
    from keras_shared.files.paths import PICTURE, as_path
    from keras_shared.presets.loading import load
    from keras_shared.presets.names import INNER_MODEL, version_dir
    from keras_shared.presets.reading import FILES
    from keras_shared.sharing import draw_sharing, sharing_report, stored_report, write_tree
    from keras_shared.sharing.table import print_report
    from keras_shared.terminal import console

    if options.picture:
        as_path(options.picture, "--picture", *PICTURE)
    if options.html:
        as_path(options.html, "--html", ".html")
    foreign = None
    if not options.model.endswith(FILES):
        folder = version_dir(options.model)
        foreign = None if (folder / INNER_MODEL).exists() else folder
    if foreign is not None:
        report = stored_report(foreign)
    else:
        report = sharing_report(load(options.model, compile=False))
    print_report(report, console())
    if options.json:
        replace_text(options.json, json.dumps(report.to_dict(), indent=2) + "\n")
    if options.picture:
        draw_sharing(report, options.picture)
    if options.html:
        write_tree(report, options.html)
