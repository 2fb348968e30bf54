"""One gradient step of a twin net, by hand: `python docs/twin_update.py`.

Two towers read two inputs by one kernel W. The loss depends on W in two ways, so that its gradient
is a sum of two, one from each tower, and there is one update:

    z1 = tanh(x1 W),  z2 = tanh(x2 W),  L = mean (|z1 - z2|^2 - t)^2
    dL/dW = dL/dW1 + dL/dW2  at W1 = W2 = W                        (the chain rule)
    W <- W - rate (dL/dW1 + dL/dW2)

What follows computes both parts in NumPy, compares the sum with finite differences, with TensorFlow
and with a step of Keras, and shows what goes wrong when each tower is updated by its own part, or W
by the product of the two, a formula that circulates.

Reference: LeCun 1989, "Generalization and Network Design Strategies" (weight sharing); Bromley,
Guyon, LeCun, Saeckinger, Shah 1993, "Signature Verification Using a Siamese Time Delay Neural
Network".
"""

import keras
import numpy as np
import tensorflow as tf

from keras_shared.layers import Shared

RATE = 0.1


def loss(first: np.ndarray, second: np.ndarray, x1: np.ndarray, x2: np.ndarray, t: np.ndarray):
    """The loss, with a kernel for each tower: W is twice the same."""
    distance = np.square(np.tanh(x1 @ first) - np.tanh(x2 @ second)).sum(-1)  # (pairs,)
    return np.square(distance - t).mean()


def two_gradients(
    first: np.ndarray, second: np.ndarray, x1: np.ndarray, x2: np.ndarray, t: np.ndarray
):
    """What comes back through each tower, both of the shape of W."""
    z1, z2 = np.tanh(x1 @ first), np.tanh(x2 @ second)  # (pairs, units)
    between = z1 - z2
    of_distance = 2 * (np.square(between).sum(-1) - t) / len(t)  # (pairs,)
    of_z1 = 2 * between * of_distance[:, None]  # of z2: the same with a minus
    return x1.T @ (of_z1 * (1 - z1**2)), x2.T @ (-of_z1 * (1 - z2**2))


def by_differences(w: np.ndarray, *data: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """The slope of the loss along each element of W, which moves both towers."""
    slopes = np.zeros_like(w)
    for place in np.ndindex(w.shape):
        up, down = w.copy(), w.copy()
        up[place] += step
        down[place] -= step
        slopes[place] = (loss(up, up, *data) - loss(down, down, *data)) / (2 * step)
    return slopes


def twin_net(w: np.ndarray) -> keras.Model:
    """The same in Keras: one Dense, called on both inputs."""
    tower = keras.layers.Dense(w.shape[1], "tanh", use_bias=False, dtype="float64", name="tower")
    x1, x2 = (keras.Input((w.shape[0],), dtype="float64") for _ in range(2))
    z1, z2 = Shared(tower, dtype="float64")([x1, x2])
    model = keras.Model([x1, x2], keras.ops.sum(keras.ops.square(z1 - z2), axis=-1))
    tower.kernel.assign(w)
    return model


def problem() -> tuple[np.ndarray, ...]:
    """A kernel, inputs for both towers, and the distances that they should get."""
    random = np.random.default_rng(1)
    w = random.normal(size=(4, 3)) / 2
    return w, random.normal(size=(8, 4)), random.normal(size=(8, 4)), random.uniform(size=8)


def main() -> dict[str, np.ndarray]:
    """Prints the steps, and returns what a test compares."""
    w, *data = problem()
    x1, x2, t = data

    # === Two gradients, one sum, one update ===
    from_1, from_2 = two_gradients(w, w, *data)
    total = from_1 + from_2
    updated = w - RATE * total
    gap = np.abs(total - by_differences(w, *data)).max()
    print(f"the sum and finite differences differ by {gap:.0e}")

    # === The same in Keras: TensorFlow sums both uses of the one variable ===
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        model = twin_net(w)
        (kernel,) = model.trainable_variables
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(tf.square(model([x1, x2]) - t))
        in_keras = tape.gradient(value, kernel).numpy()
        model.compile(keras.optimizers.SGD(RATE), "mse")
        model.train_on_batch([x1, x2], t)
        stepped = kernel.numpy()
    finally:
        keras.config.set_floatx(before)
    print(f"the sum and the gradient in Keras differ by {np.abs(total - in_keras).max():.0e}")
    print(f"the updates in NumPy and in Keras differ by {np.abs(updated - stepped).max():.0e}")

    # === Each tower by its own part: two kernels from now on, and no twins ===
    first, second = w - RATE * from_1, w - RATE * from_2
    apart = np.square(np.tanh(x1 @ first) - np.tanh(x1 @ second)).sum(-1)
    print(f"each by itself: an input is {apart.max():.2g} away from itself, in a twin net 0")

    # === By the product: no slope of anything ===
    product = from_1 * from_2
    uphill = product * total < 0
    print(f"by the product: {uphill.sum()} of {uphill.size} elements go up the slope")
    print("the loss", " ".join(f"{name} {value:.4f}" for name, value in {
        "before": loss(w, w, *data),
        "after the sum": loss(updated, updated, *data),
        "after the product": loss(w - RATE * product, w - RATE * product, *data),
    }.items()))  # fmt: skip
    return {
        "total": total, "in_keras": in_keras, "updated": updated, "stepped": stepped,
        "by_differences": by_differences(w, *data), "apart": apart, "uphill": uphill,
    }  # fmt: skip


if __name__ == "__main__":
    main()
