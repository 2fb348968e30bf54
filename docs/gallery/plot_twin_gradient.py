"""
The gradient of a twin net is a sum
===================================

A tower that reads two images is one set of weights, called twice. Each call sends back a gradient,
and training sees their sum: :py:obj:`signal_report <keras_shared.signal_report>` says how long both
parts are, and how long the sum is.
"""

import keras
import matplotlib.pyplot as plt

from keras_shared import signal_report
from keras_shared.batching import pair_batches
from keras_shared.datasets import load_digits
from keras_shared.zoo import SiameseNet

keras.utils.set_random_seed(1)
tower = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, activation="relu", name="conv_1"),
        keras.layers.Conv2D(32, 3, activation="relu", name="conv_2"),
        keras.layers.Flatten(),
        keras.layers.Dense(32, name="embedding"),
    ]
)
model = SiameseNet(tower, image_shape=(8, 8, 1))
model.compile("adam", loss="contrastive")
pairs = pair_batches(load_digits("train"), 128)
measured = next(iter(pairs))

before = signal_report(model, measured, jacobians=False)
model.fit(pairs, steps_per_epoch=40, epochs=3, verbose=0, shuffle=False)
after = signal_report(model, measured, jacobians=False)

# %%
# Before training both parts point the same way, and the sum is nearly twice as long as each. Later
# the two images ask for different things of the same weights. The number above the bars is the
# cosine between the parts: 1 where they agree, -1 where they cancel.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for axis, report, title in zip(
    axes, (before, after), ("before training", "after 120 steps"), strict=True
):
    kernels = [tie for tie in report.ties if tie.weight.endswith("kernel")]
    for place, tie in enumerate(kernels):
        lengths = (*tie.norms, tie.norm)
        axis.bar([place - 0.25, place, place + 0.25], lengths, 0.22, color=["C0", "C1", "0.3"])
        axis.annotate(f"{tie.cosine:.2f}", (place, max(lengths)), ha="center", va="bottom")
    axis.set_xticks(range(len(kernels)), [tie.uses[0] for tie in kernels])
    axis.margins(y=0.3)
    axis.set_title(title)
axes[0].set_ylabel("length of the gradient")
axes[1].legend(axes[1].containers[0].patches, ["from image 1", "from image 2", "their sum"])
plt.show()

# %%
# The same in NumPy, step by step: :doc:`/tutorials/twin_update`.
