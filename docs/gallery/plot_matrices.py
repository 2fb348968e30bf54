"""
What sharing looks like in a matrix
===================================

A layer without an activation multiplies by a matrix, which is read off by sending in the unit
vectors. Only in the first of these does each element have a weight of its own.
"""

import math

import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_shared import cluster
from keras_shared.layers import HashedDense, TiedDense

keras.utils.set_random_seed(1)
SIZE = 24


def net_of(*layers):
    """A net from 24 numbers to as many."""
    return keras.Sequential([keras.Input((SIZE,)), *layers])


dense = keras.layers.Dense(SIZE, use_bias=False)
half = keras.layers.Dense(SIZE, use_bias=False, name="half")
nets = {
    "Dense": net_of(dense),
    "Conv1D": net_of(
        keras.layers.Reshape((SIZE, 1)),
        keras.layers.Conv1D(1, 7, padding="same", use_bias=False),
        keras.layers.Flatten(),
    ),
    "HashedDense": net_of(HashedDense(SIZE, compression=32, use_bias=False)),
    "cluster, 8 codes": cluster(net_of(dense), codes=8),
    "Dense and TiedDense": net_of(half, TiedDense(half, use_bias=False)),
}

# %%
# The convolution repeats its kernel along the diagonal, the hash strews each weight (and its
# negative) over the matrix, the codebook rounds a trained matrix to eight values. A tied pair
# multiplies by ``W`` and then by its transpose, which is symmetric whatever ``W`` is.

figure, axes = plt.subplots(1, len(nets), figsize=(11, 2.7), layout="constrained")
for axis, (name, net) in zip(axes, nets.items(), strict=True):
    matrix = np.asarray(net(np.eye(SIZE, dtype="float32")))
    limit = np.abs(matrix).max()
    axis.imshow(matrix, cmap="RdBu", vmin=-limit, vmax=limit)
    weights = sum(math.prod(weight.shape) for weight in net.trainable_variables)
    axis.set(xticks=[], yticks=[], title=name, xlabel=f"{weights} weights")
plt.show()

# %%
# When to take which: :doc:`/how_to/share_inside_a_matrix`.
