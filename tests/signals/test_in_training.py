"""The callback, its scalars for TensorBoard, and the pictures."""

import keras
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_shared.signals import SignalError, SignalLog, draw_signals, signal_report
from keras_shared.signals.picture import histograms, strip

X = np.random.default_rng(0).normal(size=(30, 6)).astype("float32")


def trained(log, epochs=3):
    layer = keras.layers.Dense(6, "tanh", name="d")
    model = keras.Sequential([keras.Input((6,)), layer, layer, keras.layers.Dense(6, name="o")])
    model.compile("adam", "mse")
    before = signal_report(model, (X, X), jacobians=False)
    model.fit(X, X, epochs=epochs, verbose=0, callbacks=[log])
    return model, before


@pytest.mark.slow
def test_reports_before_training_and_after_each_epoch(tmp_path):
    log = SignalLog((X, X), log_dir=tmp_path)
    model, before = trained(log)
    assert len(log.reports) == 4
    assert log.reports[0].to_dict() == before.to_dict()
    after = signal_report(model, (X, X), jacobians=False)
    assert log.reports[-1].to_dict() == after.to_dict()
    assert log.reports[1].layers[0].deviation != log.reports[2].layers[0].deviation
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    assert {"signals/d/deviation", "signals/d (2)/saturated", "signals/o/gradient_mean"} <= {*tags}
    assert "signals/o/saturated" not in tags  # no activation
    kept = [(e.step, float(np.frombuffer(e.tensor_proto.tensor_content, "float32")[0])
             if e.tensor_proto.tensor_content else e.tensor_proto.float_val[0])
            for e in events.Tensors("signals/d/deviation")]  # fmt: skip
    assert [step for step, _ in kept] == [0, 1, 2, 3]
    wanted = [report.layers[0].deviation for report in log.reports]
    np.testing.assert_allclose([value for _, value in kept], wanted, rtol=1e-6)


@pytest.mark.slow
def test_training_with_it_is_training_without_it():
    ends = []
    for callbacks in ([], [SignalLog((X, X))]):
        keras.utils.set_random_seed(3)
        layers = [keras.layers.Dense(6, "tanh"), keras.layers.Dropout(0.5), keras.layers.Dense(6)]
        model = keras.Sequential([keras.Input((6,)), *layers])
        model.compile("adam", "mse")
        model.fit(X, X, epochs=2, verbose=0, callbacks=callbacks)
        ends.append(model.get_weights())
    for a, b in zip(*ends):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("data", [(X[:0], X[:0]), None, "x", X.tolist(), iter([X])])
def test_bad_data_are_said_before_training(data):
    with pytest.raises(SignalError, match="empty|Expected a batch"):
        SignalLog(data)


@pytest.mark.slow
def test_pictures(tmp_path):
    log = SignalLog((X, X))
    trained(log)
    for name, reports in (("one.png", log.reports[0]), ("several.png", log.reports)):
        with Image.open(draw_signals(reports, tmp_path / name)) as image:
            assert image.size[0] > 600 and len(image.convert("RGB").getcolors(10**6)) > 50
    assert draw_signals(log.reports[0], tmp_path / "one.svg").read_text().startswith("<?xml")
    left, right, kernels, *below = histograms(log.reports[0]).axes
    assert len(left.lines) == len(right.lines) == len(kernels.lines) == 3
    for line in left.lines:  # densities
        x, y = line.get_data()
        assert np.nansum(y) * (x[1] - x[0]) == pytest.approx(1)
    given = [layer.gradient_deviation for layer in log.reports[0].layers]
    np.testing.assert_allclose(below[1].lines[0].get_ydata(), given)
    of_kernels = [layer.kernel_gradient_deviation for layer in log.reports[0].layers]
    np.testing.assert_allclose(below[2].lines[0].get_ydata(), of_kernels)
    panels = [axes for axes in strip(log.reports).axes if axes.images]
    assert [p.get_title() for p in panels][:3] == [
        "deviation of the outputs",
        "deviation of the gradient",
        "deviation of the kernel's",
    ]
    shown = panels[0].images[0].get_array()
    assert shown.shape == (3, 4) and shown[0, 0] == log.reports[0].layers[0].deviation
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        draw_signals(log.reports, tmp_path / "picture.jpg")
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_signals([], tmp_path / "picture.png")
