import argparse

from keras_shared.cli.gallery import add_gallery

NAME = "enrol"
HELP = "keep pictures of a name in a gallery, for `identify`"
EXAMPLE = "enrol people.npz anna anna_1.png anna_2.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_gallery(parser)
    parser.add_argument("name", metavar="NAME", help="what the pictures show")
    parser.add_argument("files", metavar="FILE", nargs="*", help="pictures, or folders of them")
    parser.add_argument("--mean", action="store_true", help="keep the mean of these pictures alone")
    parser.add_argument("--remove", action="store_true", help="forget the name")


def run(options: argparse.Namespace) -> None:
    import pathlib

    from keras_shared.cli.gallery import open_gallery, pictures
    from keras_shared.errors import UsageError
    from keras_shared.files.atomic import locked
    from keras_shared.gallery import GalleryError
    from keras_shared.terminal import say

    if bool(options.files) == options.remove:
        raise UsageError(
            "Name pictures to enrol, or --remove without pictures. Received: "
            f"{len(options.files)} files, --remove {'given' if options.remove else 'not given'}"
        )
    folder = pathlib.Path(options.gallery).resolve().parent
    if not folder.is_dir():
        raise GalleryError(f"There is no folder {folder}. Make it first.")
    # of two at once, neither loses what the other enrols
    with locked(folder, GalleryError, "Try again when it is done.", seconds=60):
        gallery = open_gallery(options, new=not options.remove)
        if options.remove:
            gallery.remove(options.name)
        else:
            _, images = pictures(options.files, gallery.model, options.invert, options.model)
            gallery.enrol(options.name, images, keep="mean" if options.mean else "all")
        gallery.save(options.gallery)
    say(f"{options.gallery}: {len(gallery.names)} names, {len(gallery)} embeddings")
