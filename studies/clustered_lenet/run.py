"""What `cluster` costs lenet5_modern_mnist: errors and bytes by the number of codes.

`python studies/clustered_lenet/run.py` writes clustered.json and README.md beside itself, in a few
minutes on two cores; stopped, it goes on with what clustered.json lacks. Each kernel gets a
codebook of its own, which is then fine-tuned with everything else that is trained (biases,
normalisation) on images of the training split, drawn by the seed: Han, Mao, Dally 2016, section 3,
without pruning and Huffman coding. The published net itself, fine-tuned as long, stands beside
them. Nothing is chosen: codes, rate (a tenth of the recipe's) and steps were fixed before the first
run.
"""

import argparse
import json
import pathlib
import tempfile
from typing import Any

import keras
import numpy as np

from keras_shared import cluster, sharing_report
from keras_shared.datasets import LabelledImages, load_mnist
from keras_shared.files.atomic import replace_text
from keras_shared.zoo import LeNet5

HERE = pathlib.Path(__file__).parent
PRESET = "lenet5_modern_mnist"
CODES = (256, 32, 16, 8, 4, 2)
SEEDS = (1, 2, 3)
IMAGES, BATCH, RATE = 12_800, 128, 0.0003  # of fine-tuning: 100 steps


def errors(model: keras.Model, data: LabelledImages) -> int:
    """How many images are read wrongly."""
    scores = model.predict(data.images, batch_size=500, verbose=0)
    return int((scores.argmax(-1) != data.labels).sum())


def fine_tuned(model: keras.Model, train: LabelledImages, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    numbers = np.random.default_rng(seed).permutation(len(train.labels))[:IMAGES]
    model.compile(
        keras.optimizers.Adam(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(
        train.images[numbers].astype("float32"), train.labels[numbers], batch_size=BATCH, verbose=0
    )
    return model


def file_bytes(model: keras.Model) -> int:
    """Size of the `.keras` file without an optimizer."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "m.keras"
        model.save(path)
        return path.stat().st_size


def measure(codes: int | None, train: LabelledImages, test: LabelledImages) -> dict[str, Any]:
    """One row; without codes, of the published net."""
    published = LeNet5.from_preset(PRESET)

    def fresh() -> keras.Model:
        return LeNet5.from_preset(PRESET) if codes is None else cluster(published, codes)

    return {
        "codes": codes,
        "weight_bytes": sharing_report(fresh()).totals["bytes"],
        "file_bytes": file_bytes(fresh()),
        "errors": errors(fresh(), test),
        "errors_fine_tuned": [errors(fine_tuned(fresh(), train, s), test) for s in SEEDS],
    }


def card(rows: list[dict[str, Any]], images: int) -> str:
    whole = rows[0]
    lines = [
        f"# {PRESET}, clustered",
        "",
        f"Wrongly read images of MNIST's {images:,} test images, at once and after "
        f"{IMAGES // BATCH} steps of fine-tuning (mean, least and most of {len(SEEDS)} seeds), and "
        "bytes of all weights in memory and of the `.keras` file, which holds the description of "
        "the model too. Biases and normalisation stay float32; a code takes 1, 2, 4 or 8 "
        "bits, so that 8 codes save no more than 16. `python studies/clustered_lenet/run.py` "
        "measures it again.",
        "",
        "| codes | weights, bytes | less by | file, bytes | errors | fine-tuned |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        after = row["errors_fine_tuned"]
        lines.append(
            f"| {row['codes'] or 'none'} | {row['weight_bytes']:,} "
            f"| {whole['weight_bytes'] / row['weight_bytes']:.1f} x | {row['file_bytes']:,} "
            f"| {row['errors']:,} | {np.mean(after):.1f} ({min(after)} to {max(after)}) |"
        )
    lines += ["", "Data: MNIST (LeCun & Cortes, CC BY-SA 3.0).", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=f"What clustering costs {PRESET}.")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to")
    out = parser.parse_args().out
    train, test = load_mnist("train"), load_mnist("test")
    out.mkdir(parents=True, exist_ok=True)
    file = out / "clustered.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    for codes in (None, *CODES)[len(rows) :]:
        rows.append(measure(codes, train, test))
        replace_text(file, json.dumps(rows, indent=1) + "\n")
        print(rows[-1])
    replace_text(out / "README.md", card(rows, len(test.labels)))


if __name__ == "__main__":
    main()
