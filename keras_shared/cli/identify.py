import argparse
import json

from keras_shared.cli.gallery import add_gallery
from keras_shared.cli.options import within

NAME = "identify"
HELP = "who or what a picture shows, of the names in a gallery"
EXAMPLE = "identify people.npz who.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_gallery(parser)
    parser.add_argument("files", metavar="FILE", nargs="+", help="pictures, or folders of them")
    parser.add_argument(
        "--top", metavar="N", type=within(1, 2**31 - 1), default=3, help="so many of the best names"
    )
    parser.add_argument(
        "--threshold", metavar="P", type=within(0.0, 1.0),
        help="probability below which a picture is 'unknown' (default: the gallery's own, 0.5)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="JSON in place of the table")


def run(options: argparse.Namespace) -> None:
    from keras_shared.cli.gallery import open_gallery, pictures
    from keras_shared.terminal import TextTable, console

    gallery = open_gallery(options, new=False)
    if options.threshold is not None:
        gallery.threshold = options.threshold
    files, images = pictures(options.files, gallery.model, options.invert, options.model)
    identities = gallery.identify(images, options.top)
    if options.json:
        found = [
            {"file": file, "name": name, "matches": [match._asdict() for match in matches]}
            for file, (name, matches) in zip(files, identities, strict=True)
        ]
        print(json.dumps(found, indent=1))
        return
    table = TextTable("file", "shows", "probability of the best")
    for file, (name, matches) in zip(files, identities, strict=True):
        best = [f"{match.name} {100 * match.probability:.1f} %" for match in matches]
        table.add_row(file, name, best)
    console().print(table)
