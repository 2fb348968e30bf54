"""
Two numbers for each digit
==========================

An autoencoder squeezes 64 pixels into two numbers and back. Its decoder reads the kernels of its
encoder, transposed: each exists once.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_shared import sharing_report
from keras_shared.datasets import load_digits
from keras_shared.zoo import TiedAutoencoder

keras.utils.set_random_seed(1)
train, test = load_digits("train"), load_digits("test")
x, unseen = (digits.images.reshape(-1, 64) / 255 for digits in (train, test))

model = TiedAutoencoder(units=(64, 32, 2), input_dim=64, activation="gelu")
model.compile(keras.optimizers.Adam(0.003), loss="binary_crossentropy")
model.fit(x, x, batch_size=50, epochs=40, verbose=0)
totals = sharing_report(model).totals
print(f"{totals['parameters']:,} parameters, {totals['parameters_without_sharing']:,} without ties")

# %%
# On the left the codes of digits that it never saw, by writers that it never saw. On the right what
# the decoder makes of the codes on a grid.

codes = model.encode(unseen)
low, high = np.quantile(codes, (0.02, 0.98), axis=0)
grid = np.stack(np.meshgrid(*(np.linspace(low[i], high[i], 12) for i in (0, 1))), axis=-1)
drawn = model.decode(grid[::-1].reshape(-1, 2)).reshape(12, 12, 8, 8)

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.3), layout="constrained")
points = left.scatter(*codes.T, c=test.labels, cmap="tab10", vmin=-0.5, vmax=9.5, s=14)
left.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="code 1", ylabel="code 2")
figure.colorbar(points, ax=left, ticks=range(10), label="digit")
extent = (low[0], high[0], low[1], high[1])
right.imshow(drawn.swapaxes(1, 2).reshape(96, 96), cmap="gray_r", extent=extent, aspect="auto")
right.set(xlabel="code 1", ylabel="code 2")
plt.show()

# %%
# What the tie costs and buys, measured: :doc:`/tutorials/tie_an_autoencoder`.
