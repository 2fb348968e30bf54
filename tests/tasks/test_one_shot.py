import numpy as np
import pytest

from keras_shared.datasets import DataError, LabelledImages, load_omniglot
from keras_shared.datasets.omniglot_runs import RUNS, drawers_of, official_runs
from keras_shared.evaluation.measuring import measure
from keras_shared.losses import LOSSES
from keras_shared.recipes import RecipeError, read_recipe, recipe_from
from keras_shared.tasks import TASKS
from keras_shared.tasks.one_shot import one_shot_accuracy, one_shot_answers, one_shot_error
from keras_shared.tasks.unseen_classes import embed_unseen, plot_runs, unseen_metrics
from keras_shared.zoo import SiameseNet

RANDOM = np.random.default_rng(3)


def unit(*shape):
    x = RANDOM.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_errors_by_hand():
    embeddings = unit(40, 3)
    tasks = [RANDOM.permutation(40)[: 2 * ways].reshape(2, ways) for ways in (5, 8, 20)]
    wrong = []
    for (known, queries), answers in zip(tasks, one_shot_answers(embeddings, tasks)):
        apart = [[np.sum((embeddings[q] - embeddings[k]) ** 2) for k in known] for q in queries]
        np.testing.assert_array_equal(answers, np.argmin(apart, axis=1))
        wrong.append(np.mean(answers != np.arange(len(known))))
    assert one_shot_error(embeddings, tasks) == pytest.approx(100 * np.mean(wrong), abs=1e-3)


def test_the_metric_of_a_batch_agrees():
    embeddings, labels = unit(14, 3).astype("float32"), np.tile(np.arange(7), 2)
    task = np.arange(14).reshape(2, 7)
    share = float(np.mean(one_shot_accuracy(labels[:, None], embeddings)))
    assert share == pytest.approx(1 - one_shot_error(embeddings, [task]) / 100, abs=1e-5)
    # in any order: the first of each class is known
    mixed = np.array([3, 1, 1, 3, 3])
    x = np.array([[1, 0], [0, 1], [0.6, 0.8], [0, 1], [0.8, 0.6]], "float32")
    assert float(np.mean(one_shot_accuracy(mixed, x))) == pytest.approx(2 / 3)


# two alphabets of 24 characters by 3 drawers; a test split with runs
GROUPS = np.repeat([0, 1], 24)
LABELS = RANDOM.permutation(np.repeat(np.arange(48), 3))
IMAGES = RANDOM.integers(0, 256, (144, 8, 8, 1)).astype("uint8")
SPLIT = LabelledImages(IMAGES, LABELS, GROUPS, tuple(map(str, range(48))), ("x", "y"))
SPLIT = SPLIT._replace(
    runs=np.array(
        [[[np.flatnonzero(c == LABELS)[i] for c in range(20)] for i in pair]
         for pair in ((0, 1), (1, 2))]
    )
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("negatives", [pytest.param("any", marks=pytest.mark.slow), "same_group"])
def test_metrics_of_unseen_classes(recipe, negatives):
    one = recipe("pairs", **{"data.test_groups": ["y", "x"], "data.validation_groups": [],
                             "data.negatives": negatives})  # fmt: skip
    model = SiameseNet(image_shape=(8, 8, 1))
    batches = one.task.test_batches(SPLIT, one.data, 1)
    metrics, test = measure(model, one, SPLIT, batches, verbose=0)
    other = {"any": "same_group", "same_group": "any"}[negatives]
    assert set(metrics) - {"pairs", "accuracy_percent", "auc", "equal_error_rate_percent"} == {
        "within_group_20_way_error_percent", "any_group_20_way_error_percent",
        "any_group_5_way_error_percent", f"accuracy_percent_{other}",
    }  # fmt: skip
    embeddings = model.embed(IMAGES)
    expected = one_shot_error(embeddings, SPLIT.runs)
    assert metrics["within_group_20_way_error_percent"] == pytest.approx(expected)
    assert metrics["any_group_5_way_error_percent"] < metrics["any_group_20_way_error_percent"]
    # by the model itself, through pairs of the other rule
    changed = one.with_changes({"data.negatives": other})
    through, _ = measure(model, changed, SPLIT, one.task.test_batches(SPLIT, changed.data, 1),
                         verbose=0)  # fmt: skip
    assert through["accuracy_percent"] == metrics[f"accuracy_percent_{other}"]
    assert set(one.task.plots(test)) == {"roc", "runs", "embeddings", "mistakes"}


def test_what_has_no_groups_or_no_tower(recipe):
    one = recipe("pairs")
    flat = SPLIT._replace(groups=np.arange(48), group_names=SPLIT.class_names, runs=None)
    data = one.data.model_copy(update={"test_groups": ()})
    model = SiameseNet(image_shape=(8, 8, 1))
    unseen = embed_unseen(model, flat, data)
    assert unseen_metrics(unseen, flat) == {} == plot_runs(unseen, flat)
    assert embed_unseen(model.tower, flat, data) is None


def test_official_runs_by_name():
    names = tuple(f"{alphabet}_{i}" for alphabet in RUNS for i in range(50))
    labels = np.repeat(np.arange(500), 20)
    drawers = np.tile(np.arange(1, 21), 500)
    order = RANDOM.permutation(len(labels))
    labels, drawers = labels[order], drawers[order]
    runs = official_runs(labels, names, drawers)
    assert runs.shape == (20, 2, 20) and len(np.unique(runs)) == 800
    for i, (known, queries) in enumerate(runs):
        np.testing.assert_array_equal(labels[known], labels[queries])
        assert len(set(labels[known])) == 20 == sum(labels[known] // 50 == i // 2)
        assert len(set(drawers[known])) == 1 == len(set(drawers[queries]))
    assert [int(drawers[r[0, 0]]) for r in runs[:2]] == [5, 3]
    assert names[labels[runs[0, 0, 5]]] == "Atlantean_6"  # the seventh character


@pytest.mark.slow
def test_drawers_of_another_order_are_refused(data_dir):
    split = load_omniglot("train", data_dir)
    assert split.drawers.min() == 1 and split.drawers.max() == 20
    for labels in (split.labels[::-1], split.labels[:-1]):
        with pytest.raises(DataError, match="'train' of omniglot are not in the order of version"):
            drawers_of("train", labels)
    small = load_omniglot("train", data_dir, background="small1")
    assert len(np.unique(small.groups)) == 5 and len(small.labels) == 2720


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"training.loss": "n_pair", "data.examples_per_class": 1},
            "`data.examples_per_class`: received 1, expected at least 2 with loss = 'n_pair'",
        ),
        (
            {"data.examples_per_class": 2},
            "`data.examples_per_class`: received 2, which is .* 'binary_crossentropy' takes pairs",
        ),
        (
            {"training.loss": "contrastive", "data.distortion": [5.0, 0.0, 0.0, 0.0]},
            r"`data.distortion`: received \(5.0, 0.0, 0.0, 0.0\), .* Leave it out",
        ),
    ],
)
def test_loss_and_batches_must_agree(recipe, changes, said):
    with pytest.raises(RecipeError, match=said):
        recipe("pairs", **changes)


def test_the_loss_decides_where_the_recipe_does_not(recipe, tmp_path):
    assert recipe("pairs").data.examples_per_class == 0
    whole = recipe("pairs", **{"training.loss": "triplet"})
    assert whole.data.examples_per_class == 2
    whole.write(tmp_path / "r.toml")
    assert read_recipe(tmp_path / "r.toml") == whole
    assert whole.with_changes({"training.loss": "contrastive"}).data.examples_per_class == 0


def test_listed_pairs_have_no_classes(tmp_path):
    table = {
        "name": "mine", "model": {"class_name": "SiameseNet", "image_shape": [8, 8, 1]},
        "data": {"name": "pairs", "path": "p.csv"}, "training": {"loss": "n_pair"},
    }  # fmt: skip
    with pytest.raises(RecipeError, match="'n_pair', .* 'pairs' lists pairs. Set it to 'binary_c"):
        recipe_from(table)
    advised = recipe_from({**table, "training": {"loss": "binary_crossentropy"}})
    advised.write(tmp_path / "r.toml")
    assert read_recipe(tmp_path / "r.toml") == advised


def test_the_monitor_goes_with_the_batches(recipe):
    task = TASKS["verification"]
    pairs = recipe("pairs")
    classes = pairs.with_changes({"training.loss": "triplet", "data.examples_per_class": 2})
    assert task.monitored(pairs.data).key == "val_probability_accuracy"
    assert task.monitored(classes.data).key == "val_one_shot_accuracy"
    for name in set(task.losses) - {"binary_crossentropy", "contrastive"}:
        assert set(task.compile_arguments(LOSSES[name]())) == {"loss", "metrics"}
