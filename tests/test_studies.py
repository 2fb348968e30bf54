"""Studies that are a program, on little: `studies/*/run.py`."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def transfer():
    path = ROOT / "studies" / "siamese_transfer" / "run.py"
    spec = importlib.util.spec_from_file_location("siamese_transfer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nearest_mean_by_hand(transfer):
    random = np.random.default_rng(0)
    known, labels = random.normal(size=(30, 4)), np.repeat(np.arange(10), 3)
    asked, truth = random.normal(size=(50, 4)), random.integers(0, 10, 50)
    right = 0
    for image, label in zip(asked, truth, strict=True):
        far = [np.linalg.norm(image - known[labels == c].mean(0)) for c in range(10)]
        right += far.index(min(far)) == label
    assert transfer.percent_right(known, labels, asked, truth) == pytest.approx(2 * right)


@pytest.mark.slow
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
