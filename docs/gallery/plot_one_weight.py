"""
One weight for all connections
==============================

In a weight-agnostic net all connections read the same number; what it knows is in its graph. A
search changes graphs at random, and keeps those that answer well with each of six values of the
weight.
"""

import matplotlib.pyplot as plt
import numpy as np

from keras_shared.datasets import load_digits
from keras_shared.zoo import WeightAgnosticNet, search_topology


def zero_to_two(split):
    """Images of the digits 0, 1 and 2, and their labels."""
    digits = load_digits(split)
    few = digits.labels < 3
    return digits.images[few], digits.labels[few]


images, labels = zero_to_two("train")
x = images.reshape(-1, 64) / 255
nets, _ = search_topology(x, labels, generations=150, population=32, verbose=False)

# %%
# The weight is a variable as any other: a value of it is tried by setting it. Beside the net that
# was found stands one that connects each pixel with each class: with one weight for all, its three
# outputs are the same number.

found = WeightAgnosticNet(nets[0].connections, nets[0].activations, class_names=("0", "1", "2"))
full = WeightAgnosticNet(class_names=("0", "1", "2"))
images, labels = zero_to_two("test")  # by other writers
values = np.linspace(-4, 4, 81)

figure, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
for model, name in ((found, "found by the search"), (full, "each pixel to each class")):
    right = []
    for value in values:
        model.set_weights([np.float32(value)])
        right.append(100 * np.mean(np.argmax(model(images), axis=-1) == labels))
    axis.plot(values, right, label=f"{name}: {len(model.connections)} connections")
axis.axvspan(-2, 2, alpha=0.1)
axis.set(
    xlabel="the one weight (searched from -2 to 2)", ylabel="test images right (%)", ylim=(0, 100)
)
axis.legend()
plt.show()

# %%
# All ten digits, after 4,000 generations: :doc:`/generated/studies_weight_agnostic_digits`. Other
# ways to make many numbers of few weights: :doc:`/how_to/share_inside_a_matrix`. Gaier & Ha 2019,
# "Weight Agnostic Neural Networks".
