"""Names with the embeddings of their images: enrol, verify, identify."""

from keras_shared import start as start
from keras_shared.gallery.gallery import Gallery as Gallery
from keras_shared.gallery.gallery import GalleryError as GalleryError
from keras_shared.gallery.gallery import Identity as Identity
from keras_shared.gallery.gallery import Match as Match
