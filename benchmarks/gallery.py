"""A gallery of a thousand to a million names, beside comparing pairs through the net.

    TFDS_DATA_DIR=... python benchmarks/gallery.py > benchmarks/gallery.txt

A file that is named first keeps the embeddings for the next time; sizes may follow it.

Everything runs on one core, and times are those of the processor, so that other work on the machine
counts little; saving and loading are by the clock on the wall. The embeddings are those of
siamese_omniglot (576 numbers) for drawings of Omniglot, each drawn at random, turned by quarters
and distorted as in training; beyond the first 100,000 an entry is one of them, moved by the
difference of two drawings of one character, as if somebody had drawn it again. Queries are other
drawings. Each entry is a name of its own.

A query's time is that of `Gallery.identify(query, k=5)` with the embedding ready; what the tower
takes for it is said below the tables. "pairs" compares the query with every entry by
`SiameseNet.verify`, measured among a thousand and multiplied. The index is that of
`identify(..., approximate=True)`; its recall is the share of the exact search's best one, and best
five, that it finds. Memory is what the process grows by, with the embeddings; the index comes on
top. Each size runs in a process of its own.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one core, for whatever starts threads

SIZES = (1_000, 10_000, 100_000, 1_000_000)
DRAWN, QUERIES, AT_ONCE, K = 100_000, 1_000, 1_000, 5
DISTORTION = (10.0, 0.2, 0.15, 1.5)  # as in the recipe


def drawings(model):
    """Embeddings of random drawings, and a number for what each shows; queries come last."""
    import numpy as np
    import tensorflow as tf

    from keras_shared.batching.distort import distort_images
    from keras_shared.batching.fetching import prepared
    from keras_shared.datasets.omniglot import load_omniglot

    before, trunk = model.halves()
    splits = [load_omniglot(name) for name in ("train", "test")]
    ink = [prepared(split.images, lambda x: before.predict(x, verbose=0)) for split in splits]
    ink = np.concatenate(ink)
    labels = np.concatenate([splits[0].labels, splits[1].labels + len(splits[0].class_names)])

    @tf.function
    def embed(images, key, turns):
        images = distort_images(tf.cast(images, tf.float32), DISTORTION, key, turns)
        return trunk(images, training=False)

    random, parts, shown = np.random.default_rng(1), [], []
    for number in range(0, DRAWN + QUERIES, AT_ONCE):
        chosen, turns = random.integers(0, len(ink), AT_ONCE), random.integers(0, 4, AT_ONCE)
        key = tf.constant([number, 1], tf.int64)
        parts.append(embed(ink[chosen], key, tf.constant(turns, tf.int32)).numpy())
        shown.append(4 * labels[chosen] + turns)
    return np.concatenate(parts), np.concatenate(shown)


def entries(size, embeddings, shown):
    """So many embeddings: real ones, then those moved by the difference of two of one character."""
    import numpy as np

    rows = np.empty((size, embeddings.shape[1]), "float32")
    real = min(size, DRAWN)
    rows[:real] = embeddings[:real]
    random, order = np.random.default_rng(2), np.argsort(shown[:DRAWN], kind="stable")
    pairs = np.stack([order[:-1], order[1:]])[:, np.diff(shown[order]) == 0]
    for start in range(real, size, AT_ONCE):
        one, two = pairs[:, random.integers(0, pairs.shape[1], AT_ONCE)]
        moved = embeddings[random.integers(0, DRAWN, AT_ONCE)] + embeddings[one] - embeddings[two]
        rows[start : start + AT_ONCE] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return rows


class Ready:
    """A model whose images are embedded already."""

    def __init__(self, model):
        self.probability, self.embedder = model.probability, model.embedder

    def embed(self, images):
        return images


def memory():
    """Bytes that the process has in memory."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def timed(call, *arguments, clock=time.process_time):
    start = clock()
    call(*arguments)
    return clock() - start


def enrol(gallery, names, rows):
    for name, row in zip(names, rows, strict=True):
        gallery.enrol(name, row[None])


def race(size, kept):
    """All that is measured for one size."""
    import numpy as np

    import keras_shared
    from keras_shared import Gallery

    model = keras_shared.load("siamese_omniglot", compile=False)
    with np.load(kept) as file:
        embeddings, shown = file["embeddings"], file["shown"]
    rows, queries = entries(size, embeddings, shown), embeddings[DRAWN:]
    del embeddings
    names, before = [f"drawing {i}" for i in range(size)], memory() - rows.nbytes
    gallery, result = Gallery(Ready(model)), {}

    result["enrol"] = timed(enrol, gallery, names, rows)
    gallery.identify(queries[:1])  # joins them once
    del rows, names
    result["memory"] = memory() - before
    asked = max(200, min(len(queries), 20_000_000 // size))

    def ask(approximate):
        times, found = [], []
        for query in queries[:asked, None]:
            start = time.process_time()
            found += gallery.identify(query, K, approximate=approximate)
            times.append(time.process_time() - start)
        median, p95 = statistics.median(times), float(np.quantile(times, 0.95))
        return [median, p95], [[m.name for m in one.matches] for one in found]

    result["exact"], best = ask(False)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "gallery.npz")
        result["save"] = timed(gallery.save, file, clock=time.perf_counter)
        result["file"] = file.stat().st_size
        result["load"] = timed(Gallery.load, file, gallery.model, clock=time.perf_counter)
    before = memory()
    result["build"] = timed(gallery.build_index)
    result["index_memory"] = memory() - before
    result["index"], found = ask(True)
    for k in (1, K):
        share = [len(set(a[:k]) & set(b[:k])) / k for a, b in zip(best, found, strict=True)]
        result[f"recall_{k}"] = statistics.mean(share)
    print(json.dumps(result))


def of_the_net(model):
    """Milliseconds for a pair among a thousand, and for the embedding of one image."""
    import numpy as np

    images = np.random.default_rng(1).integers(0, 256, (1000, 105, 105, 3)).astype("uint8")
    query = np.repeat(images[:1], 1000, axis=0)
    model.verify(query, images)
    pair = statistics.median(timed(model.verify, query, images) for _ in range(3)) / 1000
    model.embed(images[:1])
    return pair, statistics.median(timed(model.embed, images[:1]) for _ in range(50))


def main():
    import numpy as np

    import keras_shared

    model = keras_shared.load("siamese_omniglot", compile=False)
    pair, alone = of_the_net(model)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        kept = pathlib.Path(folder, "embeddings.npz")
        if len(sys.argv) > 1:
            kept = pathlib.Path(sys.argv[1])
        if not kept.exists():
            embeddings, shown = drawings(model)
            np.savez(kept, embeddings=embeddings, shown=shown)
        for size in map(int, sys.argv[2:] or SIZES):
            command = [sys.executable, __file__, "race", str(size), str(kept)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            print(f"{size:,}: {done.stdout.decode()}", file=sys.stderr)
            results[size] = json.loads(done.stdout)
    print("milliseconds a query: median, 95th percentile       recall of the index")
    print("  entries      pairs         exact         index         best   best 5")
    for size, r in results.items():
        exact, index = ([f"{1000 * t:.1f}" for t in r[key]] for key in ("exact", "index"))
        print(
            f"{size:9,} {1000 * pair * size:10,.0f}  {exact[0]:>6} {exact[1]:>6}  {index[0]:>6} "
            f"{index[1]:>6}      {100 * r['recall_1']:5.1f} %  {100 * r['recall_5']:5.1f} %"
        )
    print("\nseconds to                                    MB")
    print("  entries    enrol    save    load   index     memory   index    file")
    for size, r in results.items():
        seconds = "  ".join(f"{r[key]:6.1f}" for key in ("enrol", "save", "load", "build"))
        megabytes = "  ".join(f"{r[k] / 1e6:6,.0f}" for k in ("memory", "index_memory", "file"))
        print(f"{size:9,}   {seconds}     {megabytes}")
    print(f"\nThe tower embeds an image in {1000 * alone:.1f} ms.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["race"]:
        race(int(sys.argv[2]), sys.argv[3])
    else:
        main()
