"""tied_scale: its formulas against draws of NumPy, and what they are for in closed form."""

import keras
import numpy as np
import pytest

from keras_shared.initializers import TiedScaling, tied_scale


def growth(reading, inputs, units, times, scale, draws=400):
    """Mean square of what comes out, by that of what goes in, over draws of the weight."""
    random = np.random.default_rng(0)
    x = random.normal(size=(draws, inputs))
    sizes = []
    for row in x:
        w = random.normal(0, np.sqrt(scale / inputs), (inputs, units))
        if reading == "transposed":
            y = row @ w @ w.T
        elif reading == "added":
            y = sum(random.normal(size=inputs) @ w for _ in range(times))
        else:
            y = row
            for _ in range(times):
                y = y @ w + (y if reading == "residual" else 0)
        sizes.append((y**2).mean())
    return np.mean(sizes)


@pytest.mark.parametrize(
    ("reading", "inputs", "units", "times", "expected"),
    [
        ("as is", 40, 10, 1, 1.0),
        ("transposed", 40, 10, 1, 1.0),
        ("transposed", 10, 40, 1, 1.0),
        ("added", 30, 20, 4, 1.0),
        ("steps", 60, 60, 5, 1.0),
        ("residual", 60, 60, 6, 2.0),
    ],
)
def test_the_mean_square_is_kept(reading, inputs, units, times, expected):
    scale = tied_scale(reading, inputs, units, times)
    found = growth(reading, inputs, units, times, scale)
    assert found == pytest.approx(expected, rel=0.12)


def test_separate_weights_would_ask_for_another_scale():
    """What the tie changes: by the formula of separate weights the tied pair grows."""
    separate = 40 / np.sqrt(40 * 40)
    assert growth("transposed", 40, 40, 1, separate) == pytest.approx(81 / 40, rel=0.12)
    apart = 2 ** (1 / 12) - 1  # (1 + s)^12 = 2
    assert growth("residual", 60, 60, 12, apart) > 10


def test_values_by_hand():
    assert tied_scale("transposed", 3, 2) == pytest.approx(3 / np.sqrt(2 * 6))
    assert tied_scale("added", 3, 2, 5) == 0.2
    assert tied_scale("residual", 7, 7, 1) == pytest.approx(1.0)  # 1 + s = 2
    assert tied_scale("residual", 7, 7, 2) == pytest.approx(np.sqrt(5) - 2)  # 1 + 4 s + s^2 = 2
    assert tied_scale("residual", 7, 7, 1000) * 1000**2 == pytest.approx(0.8, rel=0.05)


def test_it_is_the_scale_of_keras():
    scale = tied_scale("transposed", 30, 20)
    plain = keras.initializers.VarianceScaling(scale, "fan_in", "uniform", seed=2)((30, 20))
    np.testing.assert_array_equal(TiedScaling(seed=2)((30, 20)), plain)
    kernel = np.asarray(TiedScaling(gain=4.0)((5, 5, 8, 50)))
    assert kernel.var() * 200 == pytest.approx(4 * tied_scale("transposed", 200, 50), rel=0.05)


def test_own_draws_and_saving(tmp_path):
    drawn = TiedScaling(distribution="untruncated_normal", times=2, reading="added", gain=2.0)
    a, b = np.asarray(drawn((4, 4))), np.asarray(drawn((4, 4)))
    assert np.abs(a - b).max() > 1e-3
    layer = keras.layers.Dense(2, kernel_initializer=drawn)
    model = keras.Sequential([keras.Input((3,)), layer])
    model.save(tmp_path / "model.keras")
    kept = keras.models.load_model(tmp_path / "model.keras").layers[0].kernel_initializer
    assert kept.get_config() == drawn.get_config()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: tied_scale("twice", 2, 2), "reading='twice'"),
        (lambda: tied_scale("as is", 0, 2), "inputs=0"),
        (lambda: tied_scale("added", 2, 2, 0), "times=0"),
        (lambda: tied_scale("steps", 2, 3), "a square"),
        (lambda: TiedScaling(gain=0.0), "gain=0.0"),
        (lambda: TiedScaling(distribution="cauchy"), "distribution"),
        (lambda: TiedScaling()((3,)), r"shape=\(3,\)"),
        (lambda: TiedScaling("residual")((3, 4)), "a square"),
    ],
)
def test_bad_input(call, said):
    with pytest.raises(ValueError, match=said):
        call()
