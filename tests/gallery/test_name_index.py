import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import Vectors

from keras_shared.gallery import Gallery, GalleryError
from keras_shared.gallery.name_index import NameIndex

pytest.importorskip("usearch", reason="the extra `index` is not installed")


def clustered(random, names, features=32):
    """Names of one to four vectors each, as of one thing seen from several sides."""
    middles = random.normal(size=(names, features))
    of_names = {
        f"n{i}": middle + 0.5 * random.normal(size=(random.integers(1, 5), features))
        for i, middle in enumerate(middles)
    }
    return of_names, middles + 0.5 * random.normal(size=middles.shape)


def filled(of_names):
    gallery = Gallery(Vectors())
    for name, vectors in of_names.items():
        gallery.enrol(name, vectors)
    return gallery


def agreement(exact, found):
    """Share of the exact search's names that the other found."""
    return np.mean([
        len({m.name for m in a.matches} & {m.name for m in b.matches}) / len(a.matches)
        for a, b in zip(exact, found, strict=True)
    ])  # fmt: skip


@pytest.mark.slow
def test_finds_nearly_all_with_the_same_probabilities():
    of_names, queries = clustered(np.random.default_rng(1), 2000)
    gallery = filled(of_names)
    exact, found = gallery.identify(queries, k=5), gallery.identify(queries, 5, approximate=True)
    assert agreement(exact, found) > 0.98
    for a, b in zip(exact, found, strict=True):
        known = dict(a.matches)
        shared = [m for m in b.matches if m.name in known]
        assert len(b.matches) == 5
        np.testing.assert_allclose(
            [m.probability for m in shared], [known[m.name] for m in shared], rtol=1e-5
        )
        assert list(b.matches) == sorted(b.matches, key=lambda match: -match.probability)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_follows_whatever_is_enrolled_and_removed(data):
    """In a small gallery all are looked at: the answers are those of the exact search."""
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    gallery = filled({"first": random.normal(size=(2, 4))})
    gallery.build_index()
    for step in range(data.draw(st.integers(1, 12))):
        name = f"n{data.draw(st.integers(0, 4))}"
        if name in gallery and data.draw(st.booleans()):
            gallery.remove(name)
        elif step == 5:
            gallery.merge(
                filled({name: random.normal(size=(3, 4)), "z": random.normal(size=(1, 4))})
            )
        else:
            keep = data.draw(st.sampled_from(["all", "mean"]))
            gallery.enrol(name, random.normal(size=(data.draw(st.integers(1, 15)), 4)), keep=keep)
    queries, k = random.normal(size=(3, 4)), data.draw(st.integers(1, 7))
    exact, found = gallery.identify(queries, k), gallery.identify(queries, k, approximate=True)
    assert len(gallery._index) == len(gallery)
    for a, b in zip(exact, found, strict=True):
        np.testing.assert_allclose(
            [m.probability for m in a.matches], [m.probability for m in b.matches], rtol=1e-4
        )


def test_one_name_with_most_embeddings_hides_no_other():
    random = np.random.default_rng(3)
    crowd = np.eye(8)[:1] + 0.01 * random.normal(size=(500, 8))
    others = {f"n{i}": np.eye(8)[:1] + random.normal(size=(1, 8)) for i in range(6)}
    gallery = filled({"crowd": crowd, **others})
    exact, found = (gallery.identify(np.eye(8)[:1], 4, approximate=a) for a in (False, True))
    assert [m.name for m in found[0].matches] == [m.name for m in exact[0].matches]


def test_all_removed_and_enrolled_again():
    gallery = filled({"a": np.eye(3)[:2], "b": np.eye(3)[2:]})
    gallery.build_index()
    for name in ("a", "b"):
        gallery.remove(name)
    with pytest.raises(GalleryError, match="Nothing is enrolled"):
        gallery.identify(np.eye(3), approximate=True)
    gallery.enrol("b", np.eye(3)[:1])
    [identity] = gallery.identify(np.eye(3)[:1], 3, approximate=True)
    assert [match.name for match in identity.matches] == ["b"]


def test_without_the_extra_the_error_names_it(monkeypatch):
    gallery = filled({"a": np.eye(3)})
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    words = r'usearch.index is not installed: pip install "keras_shared\[index\]"'
    for call in (gallery.build_index, lambda: gallery.identify(np.eye(3), approximate=True)):
        with pytest.raises(ImportError, match=words):
            call()
    assert gallery.identify(np.eye(3))[0].name == "a"
    with pytest.raises(ImportError, match="index"):
        NameIndex(3)
