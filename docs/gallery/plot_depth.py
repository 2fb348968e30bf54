"""
What a shared block does over depth
===================================

``shared_transformer_shakespeare`` calls two blocks in turn, four uses in all, and predicts the next
character of a text by the table that its characters are read with. That table can be asked early:
after each use of a block.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_shared.zoo import SharedTransformer

model = SharedTransformer.from_preset("shared_transformer_shakespeare")
text = "ROMEO:\nWhat light through yonder window breaks"
tokens = model.tokenizer([text])
stack, norm, logits = (model.get_layer(name) for name in ("stack", "norm", "logits"))
x = model.get_layer("positions")(model.get_layer("table")(tokens))
probabilities = []
for block in stack.uses:
    x = block(x)  # (1, characters, 128)
    probabilities.append(keras.ops.convert_to_numpy(keras.ops.softmax(logits(norm(x))))[0])
# (uses, characters, vocabulary), without the last character, which has no next one here
probabilities = np.stack(probabilities)[:, :-1]
vocabulary = model.vocabulary

# %%
# A column is a character of the text. Rows show the best guess for it after each use, darker where
# the right character has a higher probability.


def shown(character):
    return {"\n": "\u21b5", " ": "\u2423"}.get(character, character)


following = np.asarray(tokens)[0, 1:]
of_right = probabilities[:, np.arange(len(following)), following]
figure, axis = plt.subplots(figsize=(11, 2.6), layout="constrained")
image = axis.imshow(of_right, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
for use, place in np.ndindex(of_right.shape):
    guess = vocabulary[probabilities[use, place].argmax() - 2]  # 0 pads, 1 is unknown
    axis.text(place, use, shown(guess), ha="center", va="center")
names = [f"use {use + 1}: block {'AB'[index]}" for use, index in enumerate(stack.indices)]
axis.set_yticks(range(len(names)), names)
axis.set_xticks(range(len(following)), map(shown, text[1:]))
plt.show()

# %%
for name, guesses, probability in zip(names, probabilities.argmax(-1), of_right, strict=True):
    right = 100 * np.mean(guesses == following)
    print(
        f"{name}: {right:.0f} % right, mean probability of the right one {probability.mean():.2f}"
    )

# %%
# How to choose what repeats: :doc:`/how_to/share_over_depth`.
