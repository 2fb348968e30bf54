import argparse
import pathlib

NAME = "pictures"
HELP = "write four pictures to try models with: a digit, and characters"
EXAMPLE = "pictures"
LIGHT = True

PICTURES = pathlib.Path(__file__).parents[1] / "pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", metavar="DIR", default=".", help="default: the current folder")


def run(options: argparse.Namespace) -> None:
    from keras_shared.files.atomic import FileError, make_folder, replacing
    from keras_shared.terminal import say

    folder = pathlib.Path(options.to)
    make_folder(folder)
    for picture in sorted(PICTURES.glob("*.png")):
        target = folder / picture.name
        content = picture.read_bytes()
        if target.exists() and (not target.is_file() or target.read_bytes() != content):
            raise FileError(
                f"{target} is another file already. Move it, or name a folder: --to DIR"
            )
        with replacing(target) as scratch:
            scratch.write_bytes(content)
        say(target)
