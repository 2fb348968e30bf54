"""Studies that are a program, on little: `studies/*/run.py`."""

import importlib.util
import json
import pathlib

import keras
import numpy as np
import pytest

from keras_shared import cluster
from keras_shared.datasets import load_mnist

ROOT = pathlib.Path(__file__).parents[1]


def program(study):
    path = ROOT / "studies" / study / "run.py"
    spec = importlib.util.spec_from_file_location(study, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def transfer():
    return program("siamese_transfer")


@pytest.fixture
def adding():
    return program("adding_rnn")


def test_nearest_mean_by_hand(transfer):
    random = np.random.default_rng(0)
    known, labels = random.normal(size=(30, 4)), np.repeat(np.arange(10), 3)
    asked, truth = random.normal(size=(50, 4)), random.integers(0, 10, 50)
    right = 0
    for image, label in zip(asked, truth, strict=True):
        far = [np.linalg.norm(image - known[labels == c].mean(0)) for c in range(10)]
        right += far.index(min(far)) == label
    assert transfer.percent_right(known, labels, asked, truth) == pytest.approx(2 * right)


@pytest.mark.thorough
def test_transfer_goes_on_where_it_stopped(transfer, tmp_path, data_dir, monkeypatch):
    for name, value in {"STEPS": 1, "TRIALS": 5, "TEST_IMAGES": 40, "EXAMPLES": (1, 3)}.items():
        monkeypatch.setattr(transfer, name, value)
    train, test = (transfer.on_paper(split) for split in ("train", "test"))
    assert np.median(train.images[:100]) == 255  # paper, with ink of 0, as in Omniglot
    small, kept = test.part(np.arange(600)), []
    result = {"paper": transfer.PAPER, "steps": 1, "runs": []}

    def keep(result):
        kept.append(json.loads(json.dumps(result)))

    transfer.measure((1,), train, small, keep, result)
    assert [len(one["runs"]) for one in kept] == [0, 1, 2]
    assert result["one_shot"]["published"]["mean"] > 50  # of ten digits, untrained on them
    again = json.loads(json.dumps(kept[1]))  # as it was kept after one
    transfer.measure((1,), train, small, keep, again)
    for row, other in zip(result["runs"], again["runs"], strict=True):
        assert row.keys() == other.keys()
        np.testing.assert_allclose(list(row.values()), list(other.values()), atol=2.6)
    assert "Koch 2015" in transfer.card(result)
    transfer.plot(result).savefig(tmp_path / "plot.png")


def test_two_marked_numbers_are_added(adding):
    x, y = adding.sequences(400, 11, np.random.default_rng(0))
    assert x.shape == (400, 11, 2) and y.shape == (400, 1)
    assert set(np.unique(x[:, :, 1])) == {0, 1}
    assert (x[:, :5, 1].sum(1) == 1).all() and (x[:, 5:, 1].sum(1) == 1).all()
    np.testing.assert_allclose((x[:, :, 0] * x[:, :, 1]).sum(1), y[:, 0], rtol=1e-6)
    assert np.mean((y - 1) ** 2) == pytest.approx(adding.ALWAYS_ONE, abs=0.03)


@pytest.mark.thorough
def test_adding_is_learned_over_few_steps_and_goes_on_where_it_stopped(
    adding, tmp_path, monkeypatch
):
    sizes = {"STEPS": 4, "UNITS": 20, "LOOKS": 3, "UPDATES": 60, "STARTS": ("identity", "zeros")}
    for name, value in sizes.items():
        monkeypatch.setattr(adding, name, value)
    result = {"steps": 4, "units": 20, "rate": 0.001, "clip": 1.0, "batch": 64, "updates": 60}
    result["runs"], kept = [], []
    adding.measure((1, 2), lambda: kept.append(len(result["runs"])), result)
    assert kept == [1, 2, 3, 4] and len(result["runs"][0]["errors"]) == 4
    assert result["runs"][0]["errors"][-1] < 0.1 < result["runs"][0]["errors"][0]
    first = result["runs"].pop(0)
    adding.measure((1, 2), lambda: None, result)
    assert result["runs"][-1]["start"] == "identity" and result["runs"][-1]["seed"] == 1
    np.testing.assert_allclose(result["runs"][-1]["errors"], first["errors"], rtol=0.05)
    assert "180 updates" in adding.card(result)
    adding.plot(result).savefig(tmp_path / "plot.png")


@pytest.mark.thorough
def test_clustering_is_measured_and_goes_on_where_it_stopped(tmp_path, data_dir, monkeypatch):
    study = program("clustered_lenet")
    small = load_mnist("test").part(np.arange(500))
    changes = {"CODES": (16,), "SEEDS": (1,), "IMAGES": 128, "load_mnist": lambda split: small}
    for name, value in changes.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr("sys.argv", ["run.py", "--out", str(tmp_path)])
    study.main()
    rows = json.loads((tmp_path / "clustered.json").read_text())
    assert [row["codes"] for row in rows] == [None, 16]
    assert rows[1]["weight_bytes"] < rows[0]["weight_bytes"] / 6
    assert rows[1]["file_bytes"] < rows[0]["file_bytes"] and rows[0]["errors"] <= 5
    written = (tmp_path / "README.md").read_text()
    (tmp_path / "clustered.json").write_text(json.dumps(rows[:1]))
    study.main()
    assert (tmp_path / "README.md").read_text() == written


@pytest.mark.thorough
def test_sharing_is_compared_and_goes_on_where_it_stopped(tmp_path, data_dir, monkeypatch):
    study = program("when_sharing_hurts")
    nets = {name: {**net, "width": 1} for name, net in study.NETS.items()}
    changes = {"SIZES": {100: 1}, "EPOCH": 128, "SEEDS": (1, 2), "NETS": nets}
    changes["DATA"] = {"multi_mnist": study.DATA["multi_mnist"]}
    for name, value in changes.items():
        monkeypatch.setattr(study, name, value)
    folders = ["--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr("sys.argv", ["run.py", *folders])
    study.main()
    rows = json.loads((tmp_path / "sharing.json").read_text())
    assert len(rows) == 6 and {row["net"] for row in rows} == set(study.NETS)
    left = [row["errors"]["left"] for row in rows if row["net"] == "one trunk"]
    found = study.of(rows, "multi_mnist", 100, "one trunk", "left")
    np.testing.assert_array_equal(found, left)
    written = (tmp_path / "README.md").read_text()
    assert f"{np.mean(left):.2f}" in written and (tmp_path / "sharing.png").exists()
    (tmp_path / "sharing.json").write_text(json.dumps(rows[:4]))
    study.main()  # the runs are there, and are read again
    assert json.loads((tmp_path / "sharing.json").read_text())[4:] == rows[4:]


def test_a_weight_agnostic_net_is_measured_as_in_its_paper(tmp_path, monkeypatch):
    study = program("weight_agnostic_digits")
    changes = {"GENERATIONS": 3, "POPULATION": 12, "SCORED": 100, "DRAWS": 30, "EPOCHS": 1}
    for name, value in changes.items():
        monkeypatch.setattr(study, name, value)
    folders = ["--out", str(tmp_path), "--state", str(tmp_path / "state.json")]
    monkeypatch.setattr("sys.argv", ["run.py", *folders])
    study.main()
    result = json.loads((tmp_path / "digits.json").read_text())
    assert result["parameters"] == 1 and result["connections"] > 10
    net = study.Topology(**{k: tuple(map(tuple, v)) if k != "activations" else tuple(v)
                            for k, v in result["topology"].items()})  # fmt: skip
    _, x, labels = study.vectors("test")
    weight = result["best_weight"]
    right = study.answers(net, x, 10, [weight])[0].argmax(-1) == labels
    assert result["percent"]["best"] == pytest.approx(100 * right.mean(), abs=0.06)
    votes = np.stack([study.answers(net, x, 10, [w])[0].argmax(-1) for w in study.VOTES])
    most = [np.bincount(column, minlength=10).argmax() for column in votes.T]
    assert result["percent"]["ensemble"] == pytest.approx(100 * np.mean(most == labels), abs=0.06)
    assert f"{result['percent']['best']:.1f} | 91.9" in (tmp_path / "README.md").read_text()


@pytest.mark.thorough
def test_moved_digits_are_measured_and_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    study = program("time_delay_shifts")
    wide = study.moved(np.ones((1, 8, 8, 1)), 3)
    assert wide.sum() == 64 and wide[0, :, 3:11].all()
    for name, value in {"EPOCHS": 1, "SEEDS": (1,)}.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr("sys.argv", ["run.py", "--out", str(tmp_path)])
    study.main()
    rows = json.loads((tmp_path / "shifts.json").read_text())
    assert [row["net"] for row in rows] == [*study.NETS, study.PERCEPTRON]
    plain, strided = rows[0], rows[1]
    assert plain["apart"] == {"1": 0, "2": 0, "8": 0} and len(plain["errors"]) == 17
    assert np.ptp(plain["errors"][2:15]) < 2  # away from the borders, but for rounding
    assert strided["apart"]["1"] > 0.05 and strided["apart"]["2"] == 0
    assert "| every second frame | 4,234 |" in (tmp_path / "README.md").read_text()
    (tmp_path / "shifts.json").write_text(json.dumps(rows[1:]))
    study.main()
    again = json.loads((tmp_path / "shifts.json").read_text())
    assert again[:3] == rows[1:] and again[3]["net"] == rows[0]["net"]


def test_an_ideal_code_by_hand(monkeypatch):
    study = program("compressed_lenet300")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    model.layers[0].kernel.assign(np.array([0] * 12 + [1] * 2 + [2] * 2).reshape(8, 2))
    shares = np.array([12, 2, 2]) / 16
    bits = 16 * sum(-s * np.log2(s) for s in shares)
    assert study.coded_bytes(cluster(model, 4)) == np.ceil(bits / 8 + 4 * 3 + 4 * 2)
    assert study.coded_bytes(model) == 4 * 18
    for share, widths in study.NARROW.items():
        hashed = study.net(study.WIDTHS, share).count_params()
        assert 0.9 * hashed - 500 < study.net(widths).count_params() <= hashed


@pytest.mark.thorough
def test_compression_is_measured_and_goes_on_where_it_stopped(tmp_path, data_dir, monkeypatch):
    study = program("compressed_lenet300")
    small = load_mnist("test").part(np.arange(600))
    changes = {
        "SEEDS": (1,), "EPOCHS": 2, "TUNED": 1, "SOFT": {**study.SOFT, "epochs": 1},
        "load_mnist": lambda split: small,
    }  # fmt: skip
    for name, value in changes.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr("sys.argv", ["run.py", "--out", str(tmp_path)])
    study.main()
    rows = json.loads((tmp_path / "compressed.json").read_text())
    assert [row["arm"] for row in rows] == list(study.ARMS)
    by_arm = {row["arm"]: row for row in rows}
    assert by_arm["dense"]["bytes"] == 4 * 266_610
    assert by_arm["hashed 1/8"]["bytes"] < by_arm["dense"]["bytes"] / 7.8
    assert by_arm["clustered, 16 values"]["bytes"] < by_arm["dense"]["bytes"] / 7
    assert by_arm["softly shared"]["coded_bytes"] <= by_arm["softly shared"]["bytes"] + 200
    assert by_arm["clustered, 16 values"]["error_percent"] < 40
    text = (tmp_path / "README.md").read_text()
    assert "| hashed 1/64 |" in text and "lenet5_modern_mnist, codes" in text
    (tmp_path / "compressed.json").write_text(json.dumps(rows[:-1]))
    study.main()
    assert json.loads((tmp_path / "compressed.json").read_text())[:-1] == rows[:-1]


def test_rbf_nets_by_hand():
    study = program("rbf_digits")
    train = study.load_digits("train").part(np.arange(300))
    for whose, width in (("shared", "own"), ("own", "shared")):
        centres = study.centres_of(train, whose, 20, seed=1)
        model = study.net(whose, width, True, centres)
        rbf, last = (layer for layer in model.layers if layer.weights)
        last.kernel.assign(np.random.default_rng(1).normal(size=last.kernel.shape))
        x = study.vectors(train)[:4]
        far = ((x[:, None] - centres) ** 2).sum(-1)
        units = np.exp(-far / 2 / np.exp(2 * np.asarray(rbf.log_width)))
        if whose == "shared":
            wanted = units @ np.asarray(last.kernel)
        else:  # centres of class c are those of its images
            wanted = np.stack(
                [units[:, 2 * c : 2 * c + 2] @ np.asarray(last.kernel)[c] for c in range(10)], 1
            )
            every = study.vectors(train)
            means = np.stack([every[train.labels == c].mean(0) for c in range(10)])
            pairs = centres.reshape(10, 2, -1).mean(1)
            apart = np.linalg.norm(pairs[:, None] - means, axis=-1)
            assert apart.argmin(1).tolist() == list(range(10))
        np.testing.assert_allclose(model(x), wanted, atol=1e-3)


@pytest.mark.thorough
def test_rbf_nets_are_measured_and_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    study = program("rbf_digits")
    for name, value in {"EPOCHS": 2, "SEEDS": (1,), "UNITS": (20,)}.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr("sys.argv", ["run.py", "--out", str(tmp_path)])
    study.main()
    rows = json.loads((tmp_path / "rbf.json").read_text())
    assert [row["arm"] for row in rows] == list(study.ARMS)
    assert all(row["error_percent"] < 70 and row["nearest_percent"] < 20 for row in rows)
    (tmp_path / "rbf.json").write_text(json.dumps(rows[:-1]))
    study.main()
    assert json.loads((tmp_path / "rbf.json").read_text())[:-1] == rows[:-1]
    assert f"{rows[0]['error_percent']:.2f}" in (tmp_path / "README.md").read_text()
