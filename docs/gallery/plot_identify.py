"""
One image of each is enough
===========================

``siamese_omniglot`` has seen letters of many alphabets, and no digit of these. One image of each of
ten digits is enrolled, and ten others are compared with all of them by the tower that both sides
share.
"""

import matplotlib.pyplot as plt
import numpy as np

from keras_shared import Gallery
from keras_shared.datasets import load_digits
from keras_shared.zoo import SiameseNet

drawings = SiameseNet.from_preset("siamese_omniglot")
model = SiameseNet(drawings.tower, image_shape=(8, 8, 1), centered=True)

# %%
# Probabilities of "the same" come from pairs of other images: two numbers are fitted to their
# distances.

train = load_digits("train")
a, b = np.triu_indices(300, 1)
embedded = model.embed(train.images[:300])
distances = np.linalg.norm(embedded[a] - embedded[b], axis=1)
model.calibrate(distances, train.labels[a] == train.labels[b])

# %%
digits = load_digits("test")
first, second = (
    [np.flatnonzero(digits.labels == digit)[place] for digit in range(10)] for place in (0, 1)
)
gallery = Gallery(model, threshold=0.0)
for name, place in enumerate(first):
    gallery.enrol(str(name), digits.images[place : place + 1])
answers = gallery.identify(digits.images[second], k=10)

# %%
# Each row is an image that is asked about, each column an enrolled one; dark is a high probability
# that both show the same. A frame marks the answer.

figure, axes = plt.subplots(
    11, 11, figsize=(6, 6), subplot_kw={"xticks": [], "yticks": []}, gridspec_kw={"wspace": 0.1}
)
axes[0, 0].axis("off")
for i in range(10):
    axes[0, i + 1].imshow(digits.images[first[i], :, :, 0], cmap="gray_r")
    axes[i + 1, 0].imshow(digits.images[second[i], :, :, 0], cmap="gray_r")
    for match in answers[i].matches:
        axis = axes[i + 1, int(match.name) + 1]
        axis.set_facecolor(plt.colormaps["Blues"](match.probability))
        axis.spines[:].set_visible(match.name == answers[i].name)
        axis.spines[:].set_linewidth(2)
plt.show()

# %%
right = sum(answer.name == str(digit) for digit, answer in enumerate(answers))
print(f"{right} of 10 named rightly")

# %%
# With more images of each, and a threshold for "unknown": :doc:`/tutorials/enrol_and_identify`.
