"""A tie survives what Keras does to models: each operation on each topology."""

import pathlib
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import cell
from elsewhere import loaded_in_a_fresh_process, trained_on_two_devices
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations import OPERATIONS, lora_on_the_source, saved
from topologies import (
    TOPOLOGIES,
    WITHOUT_LORA,
    X,
    check_tied,
    data_for,
    encoder_decoder,
    flat,
    owner_of,
    reader_bias,
)  # fmt: skip
from written import EXPORTS

from keras_shared.layers import Shared, SharedStack, TiedDense, TiedLayer
from keras_shared.tying import TiedReader, TieError, bind_ties, readers_of, tie
from keras_shared.tying.keras_private import flatten_layers, shapes_alone_matter


def cells(operations, quick, slow):
    """Every operation on every topology, along diagonals: one in `quick` of them in the default
    run, one in `slow` in the slow one, the rest in the thorough one. Each operation and each
    topology is in all three.
    """
    for row, operation in enumerate(operations):
        for column, topology in enumerate(TOPOLOGIES):
            if operation is lora_on_the_source and topology in WITHOUT_LORA:
                continue
            at = row + 3 * column
            rare = pytest.mark.thorough if at % slow else pytest.mark.slow
            name = f"{operation.__name__}-{topology.__name__}"
            yield pytest.param(operation, topology, id=name, marks=[rare] if at % quick else [])


@pytest.mark.parametrize(("operation", "topology"), cells(OPERATIONS, quick=16, slow=2))
def test_tie_survives(operation, topology, tmp_path):
    model, x = topology(), data_for(topology)
    result = operation(model, x, tmp_path)
    original = [v.numpy() for v in model.variables] if result is not model else None
    check_tied(topology, result, x)
    if original is not None:  # and it is not tied to the model that it came from
        for before, variable in zip(original, model.variables, strict=True):
            np.testing.assert_array_equal(before, variable.numpy())


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(loaded_in_a_fresh_process, marks=pytest.mark.slow),
        pytest.param(trained_on_two_devices, marks=pytest.mark.slow),
    ],
)
def test_tie_survives_elsewhere(run):
    assert run() == {topology.__name__: "ok" for topology in TOPOLOGIES}


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("write", EXPORTS, ids=lambda f: f.__name__)
def test_export_answers_alike(write, topology, tmp_path):
    write(topology, topology(), data_for(topology), tmp_path)


def weights_as_they_are_now(layer):
    with tf.init_scope():  # outside of the graph that is being traced
        return [v.numpy() for v in layer.variables]


def copying_weight(reader):
    return weights_as_they_are_now(reader.source())[0]


def copying_call(reader, inputs, states=None, **kwargs):
    kernel, *others = weights_as_they_are_now(reader.source())
    if states is None:
        return inputs @ kernel + others[0]
    recurrent, bias, _ = others  # of a cell, with the seed of its dropout
    state = inputs @ kernel + states[0] @ recurrent + bias
    return state, [state]


call_of_stack = SharedStack.call


def copying_second_use(stack, inputs, **kwargs):
    if stack.rank or shapes_alone_matter():  # the uses of a relaxed one read by `tied_weight`
        return call_of_stack(stack, inputs, **kwargs)
    kernel, bias = weights_as_they_are_now(stack.block)
    return stack.block(inputs) @ kernel + bias


def copying_uses(shared, inputs, mask=None, **kwargs):
    kernel, bias = weights_as_they_are_now(shared.layer)
    return [shared.layer(inputs[0]), inputs[1] @ kernel + bias]


COPIED = [  # the copies above know nothing of the others
    op for op in OPERATIONS if not op.__name__.startswith(("quantized", "lora"))
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("operation", "topology"), cells(COPIED, quick=16, slow=8))
def test_the_proof_sees_a_copy(operation, topology, monkeypatch):
    """With layers that copy where they should read, a cell turns red."""
    monkeypatch.setattr(TiedReader, "tied_weight", copying_weight)
    monkeypatch.setattr(TiedLayer, "call", copying_call)
    monkeypatch.setattr(Shared, "call", copying_uses)
    monkeypatch.setattr(SharedStack, "call", copying_second_use)
    for kind in (TiedLayer, Shared):  # a trial of `call` has no values to copy
        monkeypatch.setattr(kind, "compute_output_spec", keras.Layer.compute_output_spec)
    assert cell(operation, topology, check_tied, data_for(topology)) in ("**untied**", "**wrong**")


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantised_source_is_read_dequantised(mode, tmp_path):
    inputs, source = keras.Input((64,)), keras.layers.Dense(32, name="code")
    model = keras.Model(inputs, TiedDense(source, name="reader")(source(inputs)))
    x = np.random.default_rng(1).normal(size=(8, 64)).astype("float32")
    before = model.predict(x, verbose=0)
    model.quantize(mode)
    after = model.predict(x, verbose=0)
    assert np.abs(after - before).max() < {"int8": 0.02, "int4": 0.15, "float8": 0.1}[mode] * (
        np.abs(before).max()
    )
    loaded = saved(model, x, tmp_path)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), after, atol=1e-5)


def test_decoder_alone(tmp_path):
    model = encoder_decoder()
    decoder = model.get_layer("decoder")
    z = np.ones((2, 4), "float32")
    wanted = z @ owner_of(model).kernel.numpy().T + reader_bias(model)
    np.testing.assert_allclose(decoder(z), wanted, atol=1e-6)  # the source is remembered
    decoder.save(tmp_path / "d.keras")
    alone = keras.models.load_model(tmp_path / "d.keras")
    with pytest.raises(TieError, match=r"tied to the Dense 'code' \(weight \[6, 4\]\), which is"):
        alone(z)
    with pytest.raises(TieError, match="not part of the model"):
        bind_ties(alone)
    whole = saved(model, X, tmp_path)
    bind_ties(whole)
    np.testing.assert_allclose(whole.get_layer("decoder")(z), wanted, atol=1e-6)


def test_a_reader_keeps_its_source_when_called_on_another_models_output(tmp_path):
    first = saved(flat(), X, tmp_path)
    second = saved(flat(), X, tmp_path)
    mixed = second.get_layer("reader")(first.get_layer("code")(keras.Input((6,))))
    assert mixed is not None and second.get_layer("reader").source() is second.get_layer("code")
    check_tied(flat, second, data_for(flat))


def test_two_sources_of_one_name():
    def tower(name):
        x = keras.Input((6,))
        layer = keras.layers.Dense(4, name="code")
        return layer, keras.Model(x, layer(x), name=name)

    inputs = keras.Input((6,))
    first, left = tower("left")
    _, right = tower("right")
    both = keras.layers.Add()([left(inputs), right(inputs)])
    model = keras.Model(inputs, TiedDense(first)(both))
    with pytest.raises(TieError, match="2 layers of the model match this"):
        keras.models.clone_model(model)


@pytest.mark.parametrize("rebuild", ["load", "clone", "config"])
def test_a_layer_like_the_source_is_not_taken_for_it(tmp_path, rebuild):
    """The reader's own tower has a layer of the source's name, class and shape before it."""
    source = keras.layers.Dense(4, name="code")
    x, z, inputs = keras.Input((6,)), keras.Input((4,)), keras.Input((6,))
    encoder = keras.Model(x, source(x), name="encoder")
    like = keras.layers.Dense(4, name="code")(keras.layers.Dense(6, name="wide")(z))
    decoder = keras.Model(z, TiedDense(source, name="reader")(like), name="decoder")
    model = keras.Model(inputs, decoder(encoder(inputs)))
    with pytest.raises(TieError, match="2 layers of the model match this"):
        if rebuild == "load":
            bind_ties(saved(model, np.ones((1, 6)), tmp_path))
        elif rebuild == "clone":
            bind_ties(keras.models.clone_model(model, recursive=True))
        else:
            bind_ties(keras.Model.from_config(model.get_config()))


def two_copies(folder):
    """Two copies of one net side by side, with values of their own, written to a file."""
    encoder_decoder().save(folder / "net.keras")
    nets = [keras.models.load_model(folder / "net.keras") for _ in range(2)]
    for number, net in enumerate(nets):
        bind_ties(net)
        net.name = f"net_{number}"
        net.set_weights([w + number + 0.5 for w in net.get_weights()])
    inputs = keras.Input((6,))
    model = keras.Model(inputs, [net(inputs) for net in nets])
    model.save(folder / "both.keras")
    return model, X[:3]


def tie_each(model):
    """What the error advises."""
    for net in model.layers[1:]:
        code, reader = owner_of(net), readers_of(net)[0]
        tie(reader, code)


def test_advice_on_two_copies_of_a_net_works(tmp_path):
    model, x = two_copies(tmp_path)
    wanted = model(x)
    with pytest.raises(TieError, match="2 layers of the model match this.*tie\\(reader, source"):
        bind_ties(keras.models.load_model(tmp_path / "both.keras"))
    loaded = keras.models.load_model(tmp_path / "both.keras")
    tie_each(loaded)
    owner_of(loaded.layers[2]).name = "code_2"
    loaded.save(tmp_path / "renamed.keras")
    for again in (loaded, keras.models.load_model(tmp_path / "renamed.keras")):
        bind_ties(again)
        for mine, theirs in zip(again(x), wanted):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_copies_of_copies_that_were_never_called(tmp_path):
    """One reader finds its source as its graph is built, the other waits for a call."""
    x, z = keras.Input((6,)), keras.Input((4,))
    code = keras.layers.Dense(4, name="code")
    hidden = code(x)
    encoder = keras.Model(x, [hidden, TiedDense(code, name="near")(hidden)], name="encoder")
    decoder = keras.Model(z, TiedDense(code, name="far")(z), name="decoder")
    encoded, near = encoder(x)
    model = keras.Model(x, [near, decoder(encoded)])
    model.save(tmp_path / "0.keras")
    for number in range(2):
        again = keras.models.load_model(tmp_path / f"{number}.keras")
        again.save(tmp_path / f"{number + 1}.keras")
    clone = keras.models.clone_model(keras.models.clone_model(model))
    clone.set_weights(model.get_weights())
    for other in (clone, keras.models.load_model(tmp_path / "2.keras")):
        for mine, theirs in zip(other(X[:3]), model(X[:3])):
            np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_a_reader_of_two_graphs_finds_its_source_in_the_one_that_holds_it():
    x, z = keras.Input((6,)), keras.Input((4,))
    code = keras.layers.Dense(4, name="code")
    code.build((None, 6))
    reader = TiedDense(code, name="reader")
    keras.Model(z, reader(z))
    model = keras.Model(x, reader(code(x)))
    for _ in range(2):
        model = keras.models.clone_model(model)
        assert model.get_layer("reader").source() is model.get_layer("code")
    second = keras.models.clone_model(model)
    model.name, second.name = "first", "second"
    inputs = keras.Input((6,))
    keras.Model(inputs, [model(inputs), second(inputs)])(X[:2])
    assert second.get_layer("reader").source() is second.get_layer("code")


def test_a_reader_made_from_the_config_of_another():
    model = keras.models.clone_model(flat())
    reader = model.get_layer("reader")
    again = type(reader).from_config({**reader.get_config(), "name": "again"})
    again(keras.layers.Dense(4)(model.output))
    keras.Model(model.input, again(model.get_layer("code").output))
    assert again.source() is model.get_layer("code")


def test_tied_anew_among_layers_like_the_source(tmp_path):
    source = keras.layers.Dense(4, name="code")
    x, z, inputs = keras.Input((6,)), keras.Input((4,)), keras.Input((6,))
    encoder = keras.Model(x, source(x), name="encoder")
    like = keras.layers.Dense(4, name="code")(keras.layers.Dense(6, name="wide")(z))
    decoder = keras.Model(z, TiedDense(source, name="reader")(like), name="decoder")
    keras.Model(inputs, decoder(encoder(inputs))).save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    tie(loaded.get_layer("decoder").get_layer("reader"), loaded.get_layer("encoder").layers[1])
    loaded.save(tmp_path / "again.keras")
    with pytest.raises(TieError, match="2 layers of the model match this"):
        bind_ties(keras.models.load_model(tmp_path / "again.keras"))
    loaded.get_layer("encoder").layers[1].name = "source"  # as advised
    loaded.save(tmp_path / "named.keras")
    named = keras.models.load_model(tmp_path / "named.keras")
    np.testing.assert_allclose(named(X[:2]), loaded(X[:2]), atol=1e-6)


def test_source_renamed_by_a_clone_function():
    def rename(layer):
        config = layer.get_config()
        config["name"] = "other" if config["name"] == "code" else config["name"]
        return type(layer).from_config(config)

    model = flat()
    with pytest.raises(TieError, match="tied to the Dense 'code'"):
        keras.models.clone_model(model, clone_function=rename)(data_for(flat))


def test_edited_shape_in_a_config():
    model = flat()
    edited = model.to_json().replace('"weight_shape": [6, 4]', '"weight_shape": [7, 4]')
    assert edited != model.to_json()
    model = keras.models.model_from_json(edited)
    message = r"'code' \(weight \[7, 4\]\).*of that name has a weight of shape \[\(6, 4\)\]"
    with pytest.raises(TieError, match=message):
        model(data_for(flat))
    with pytest.raises(TieError, match=message):
        bind_ties(model)


def test_another_layer_of_the_sources_name_nearer_by():
    """Names are unique at one level of a graph only: the decoder has a 'code' of its own."""
    source = keras.layers.Dense(4, name="code")
    x, z, inputs = keras.Input((6,)), keras.Input((4,)), keras.Input((6,))
    encoder = keras.Model(x, source(x), name="encoder")
    inner = keras.layers.Dense(4, name="code")(keras.layers.Dense(9, name="wide")(z))
    decoder = keras.Model(z, TiedDense(source, name="reader")(inner), name="decoder")
    model = keras.Model(inputs, decoder(encoder(inputs)))
    clone = keras.models.clone_model(model, recursive=True)
    bind_ties(clone)
    reader = clone.get_layer("decoder").get_layer("reader")
    assert reader.source() is clone.get_layer("encoder").get_layer("code")


def test_readers_of():
    assert [r.name for r in readers_of(encoder_decoder())] == ["reader"]


def test_sub_model_exports_alone(tmp_path):
    model = encoder_decoder()
    decoder = model.get_layer("decoder")
    decoder.export(tmp_path / "decoder", verbose=False)
    archive = tf.saved_model.load(str(tmp_path / "decoder"))
    served = archive.serve(np.ones((2, 4), "float32"))
    np.testing.assert_allclose(served, decoder(np.ones((2, 4), "float32")), atol=1e-6)


SLOW_OR_ALONE = (  # or they expect a model as it came, or a source named `code`
    "trained_", "published", "quantized", "lora", "source", "mixed", "readers", "sub_models",
)  # fmt: skip
QUICK = [op for op in OPERATIONS if not op.__name__.startswith(SLOW_OR_ALONE)]


@pytest.mark.slow
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    topology=st.sampled_from(TOPOLOGIES),
    operations=st.lists(st.sampled_from(QUICK), min_size=2, max_size=4),
)
def test_tie_survives_any_sequence(topology, operations):
    model, x = topology(), data_for(topology)
    for operation in operations:
        with tempfile.TemporaryDirectory() as folder:
            model = operation(model, x, pathlib.Path(folder))
    check_tied(topology, model, x)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    stack=st.lists(st.tuples(st.sampled_from(["tied", "shared"]), st.integers(1, 5)), min_size=1,
                   max_size=4),
    operation=st.sampled_from(QUICK),
)  # fmt: skip
def test_any_stack_of_tied_and_shared_layers(stack, operation):
    """Each level reads one kernel twice; after the operation all kernels change."""
    x = inputs = keras.Input((6,))
    for level, (kind, units) in enumerate(stack):
        if kind == "tied":
            source = keras.layers.Dense(units, name=f"level_{level}")
            x = TiedDense(source, use_bias=False)(source(x))
        else:
            twin = Shared(keras.layers.Dense(6, name=f"level_{level}"))
            x = keras.layers.Add()(twin([x, x]))
    model = keras.Model(inputs, x)
    with tempfile.TemporaryDirectory() as folder:
        model = operation(model, X, pathlib.Path(folder))
    owners = {layer.name: layer for layer in flatten_layers(model) if "level_" in layer.name}
    assert len(owners) == len(stack) and len(model.variables) == 2 * len(stack)
    wanted = X.astype("float64")
    for level, (kind, _) in enumerate(stack):
        owner = owners[f"level_{level}"]
        owner.kernel.assign(owner.kernel * 0.5 + 0.05)
        w, b = owner.kernel.numpy().astype("float64"), owner.bias.numpy()
        wanted = (wanted @ w + b) @ w.T if kind == "tied" else 2 * (wanted @ w + b)
    answers = model.predict(X, verbose=0)
    np.testing.assert_allclose(answers, wanted, atol=1e-4 * np.abs(wanted).max())
