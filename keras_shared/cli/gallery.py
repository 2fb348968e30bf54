"""What `enrol` and `identify` share: the gallery's file, and pictures as its model takes them."""

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from keras_shared.cli.asked_files import add_invert, files_in, warn_of_ground

if TYPE_CHECKING:
    import numpy as np

    from keras_shared.gallery import Gallery


def add_gallery(parser: argparse.ArgumentParser) -> None:
    """Add the file and --model."""
    parser.add_argument("gallery", metavar="GALLERY.npz", help="the file of enrolled names")
    parser.add_argument(
        "--model", metavar="NAME|PATH", default="siamese_omniglot", help="default: %(default)s"
    )
    add_invert(parser)


def open_gallery(options: argparse.Namespace, new: bool) -> "Gallery":
    """The gallery of a file, or an empty one if it may be `new` and there is none."""
    import keras_shared
    from keras_shared.gallery import Gallery

    model: Any = keras_shared.load(options.model, compile=False)
    if new and not pathlib.Path(options.gallery).exists():
        return Gallery(model)
    return Gallery.load(options.gallery, model)


def pictures(
    given: list[str], model: Any, invert: bool = False, preset: str = ""
) -> tuple[list[str], "np.ndarray"]:
    """The files, those in folders too, and what the model takes of them, as its graph resizes."""
    import numpy as np

    from keras_shared.cli.predict import contents
    from keras_shared.datasets.lazy_images import fit_image
    from keras_shared.files.pictures import read_picture
    from keras_shared.presets.names import entry_names

    files = [file for one in given for file in files_in(one, vectors=False)]
    shape = type(model).image_shape_of(image_shape=model.image_shape)
    sources = contents(files)
    if (bright_ink := model.bright_ink(**model.get_config())) is not None:
        learnt = "" if preset in entry_names() else type(model).__name__
        warn_of_ground(files, sources, bright_ink, invert, learnt)
    images = np.stack([fit_image(read_picture(one), shape) for one in sources])
    return files, 255 - images if invert else images
