from types import SimpleNamespace

import numpy as np


class Vectors:
    """Embeds vectors as they are, of length 1."""

    probability = SimpleNamespace(get_weights=lambda: [np.array([[-5.0]]), np.array([5.0])])
    embedder = SimpleNamespace(get_weights=list)

    def embed(self, images):
        return images / np.linalg.norm(images, axis=1, keepdims=True)
