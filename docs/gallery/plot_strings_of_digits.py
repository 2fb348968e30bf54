"""
Strings of digits, read by a net of single digits
=================================================

A classifier of single digits knows nothing of strings. Applied at every position of a wider image
it reads them: its convolutions go over the whole image once, and its dense layers become
convolutions of the size of the maps there, by the weights that they have. Nothing is copied or
trained.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from keras_shared import to_convolutional
from keras_shared.datasets import load_digits
from keras_shared.sharing import window_of
from keras_shared.zoo import LeNet5

model = LeNet5.from_preset("lenet5_modern_mnist")
reader = to_convolutional(model)
(_, window), (_, step) = window_of(reader)
print(f"it sees windows of {window} pixels, {step} apart")

# %%
# The net was trained on MNIST's digits, 20 pixels high, in images of 28. These are the digits that
# come with scikit-learn, 8 pixels high, by other writers, drawn larger and put side by side, ten to
# a string.

SIDE, MARGIN = 28, 2  # of a digit, and around it in a window
digits = load_digits("test")
small = [Image.fromarray(image[:, :, 0]) for image in digits.images[:590]]
large = np.stack([np.pad(np.asarray(image.resize((20, 20))), 4) for image in small])
strings = np.concatenate(large.reshape(59, 10, SIDE, SIDE).swapaxes(0, 1), axis=2)
images = np.pad(strings, [(0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)])[..., None]
written = digits.labels[:590].reshape(59, 10)

scores = reader.predict(images, verbose=0)  # (59, 1, positions, 10)
read = scores[:, 0, :: SIDE // step].argmax(-1)  # at the middle of each digit
print(f"{(read == written).sum()} of {read.size} digits are read rightly")
print("written", written[1].tolist(), "read", read[1].tolist())

# %%
# Between two digits the net answers too, and wrongly: it has never seen a gap.

figure, (above, below) = plt.subplots(
    2, 1, figsize=(9, 3.6), sharex=True, height_ratios=(1, 2), layout="constrained"
)
image, positions = images[1:2], scores.shape[2]
above.imshow(image[0, :, :, 0], cmap="gray_r", aspect="auto")
above.set_yticks([])
start = window / 2  # the middle of the first window
edges = (start - step / 2, start + (positions - 0.5) * step, 9.5, -0.5)
probability = keras.ops.softmax(scores[1, 0])
below.imshow(np.transpose(probability), cmap="Blues", aspect="auto", extent=edges)
below.set(yticks=range(10), ylabel="read as", xlabel="middle of the window, pixels")
below.set_xlim(0, image.shape[2])
plt.show()

# %%
# **Where moving the image moves the scores.** By whole steps of the strides the scores are the same
# numbers, one place further. By other amounts they are not: the strides see other pixels. Nor are
# they with ``padding="same"``, which reads zeros at the border of each window;
# :py:obj:`to_convolutional <keras_shared.to_convolutional>` refuses it.

gaps = {}
for shift in range(1, step + 1):
    moved = reader.predict(image[:, :, shift:], verbose=0)[0, 0]
    same = scores[1, 0, shift // step :]
    gaps[shift] = np.abs(moved[: len(same)] - same[: len(moved)]).max()
    print(f"moved by {shift} of {step} pixels, scores differ by up to {gaps[shift]:.2g}")

# %%
# What reading at once saves beside a sliding window: ``benchmarks/sliding_window.py``. LeCun et al.
# 1998, section VII, train on strings, so that gaps are known too; Matan, Burges, LeCun, Denker
# 1992, "Multi-Digit Recognition Using a Space Displacement Neural Network".
