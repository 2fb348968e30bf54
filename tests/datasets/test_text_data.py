"""Texts and sentences: of TFDS, and the user's own, with what is wrong with a file said at once."""

import numpy as np
import pytest

from keras_shared.datasets import (
    DATASETS,
    DataError,
    LabelledSentences,
    TextStream,
    from_sentences,
    from_text,
)
from keras_shared.tokenizing import Tokenizer, checked_vocabulary

ROWS = [f"film number {i},{('bad', 'good', 'so-so')[i % 3]}" for i in range(45)]


def file_of(tmp_path, content, name="mine.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# === Of TFDS ===


def test_tiny_shakespeare_comes_whole_and_in_order(data_dir):
    train = DATASETS["tiny_shakespeare"].load("train", data_dir)
    test = DATASETS["tiny_shakespeare"].load("test", data_dir)
    whole = train.text + train.held_out + test.text
    assert len(whole) == 1_115_394 and len(set(whole)) == 65
    assert len(train.text) == round(0.9 * len(whole) - 0.5)
    assert train.text.startswith("First Citizen:\n") and test.held_out is None


@pytest.mark.slow
def test_wikitext2_has_the_tokens_of_its_paper(data_dir):
    train = DATASETS["wikitext2"].load("train", data_dir)
    test = DATASETS["wikitext2"].load("test", data_dir)
    tokenizer = Tokenizer("whitespace").adapted([train.text])
    assert len(tokenizer.vocabulary) == 33_278
    counts = [tokenizer.numbers([text]) for text in (train.text, train.held_out, test.text)]
    assert [part.shape[1] for part in counts] == [2_088_628, 217_646, 245_569]
    assert all(part.min() > 1 for part in counts)  # nothing unknown, no padding


@pytest.mark.slow
def test_sst2_tests_on_the_sentences_with_labels(data_dir):
    train, test = (DATASETS["sst2"].load(split, data_dir) for split in ("train", "test"))
    assert (len(train.sentences), len(test.sentences)) == (67_349, 872)
    assert np.bincount(test.labels).tolist() == [428, 444]
    assert test.class_names == ("negative", "positive")
    assert all(sentence == sentence.strip() for sentence in test.sentences)


def test_trec_has_six_classes(data_dir):
    train, test = (DATASETS["trec"].load(split, data_dir) for split in ("train", "test"))
    assert (len(train.sentences), len(test.sentences)) == (5_452, 500)
    assert train.class_names == ("DESC", "ENTY", "ABBR", "HUM", "NUM", "LOC")
    where = list(test.sentences).index("Where is the volcano Mauna Loa ?")
    assert test.class_names[test.labels[where]] == "LOC"


# === Own texts ===


def test_own_text_is_parted_at_line_ends(tmp_path):
    lines = [f"line {i}\n" for i in range(1000)]
    path = file_of(tmp_path, "\ufeff" + "".join(lines).replace("\n", "\r\n"))
    train, test = from_text(path, "train"), from_text(path, "test")
    assert train.text + train.held_out + test.text == "".join(lines)
    assert len(test.text.splitlines()) in range(95, 106)
    for part in (train.text, train.held_out, test.text):
        assert part.startswith("line ") and part.endswith("\n")
    assert isinstance(train, TextStream)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty, and a text is expected"),
        (b" \n\n ", "is empty, and a text is expected"),
        ("caf\u00e9 au lait".encode("latin-1"), "byte 0xE9 at place 3 (line 1"),
        ("one\ntwo\n\u00fcber".encode("latin-1"), "byte 0xFC at place 8 (line 3"),
        ("hello".encode("utf-16"), "begins with the bytes 0xFFFE, as UTF-16 does"),
        ("hello".encode("utf-16-be"), "byte 0x00 at place 0"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "byte 0x00 at place 8"),
        (b"abc", "has 3 characters, too few"),
    ],
)
def test_what_is_no_text(tmp_path, content, said):
    with pytest.raises(DataError) as error:
        from_text(file_of(tmp_path, content), "train")
    assert said in str(error.value) and "mine.txt" in str(error.value)


@pytest.mark.parametrize(("encoding", "name"), [("latin-1", "LATIN1"), ("utf-16", "UTF-16")])
def test_the_advice_on_encodings_can_be_followed(tmp_path, encoding, name):
    text = "caf\u00e9\n" * 100
    path = file_of(tmp_path, text.encode(encoding))
    with pytest.raises(DataError, match=f"iconv -f {name} -t UTF-8 OLD > NEW"):
        from_text(path, "train")
    path.write_text(path.read_text(name), "utf-8")  # as iconv does
    assert from_text(path, "test").text.startswith("caf\u00e9\n")


# === Own sentences ===


def test_own_sentences_are_drawn_from_each_class(tmp_path):
    path = file_of(tmp_path, "\n".join(["text,label", *ROWS]), "mine.csv")
    train, test = from_sentences(path, "train"), from_sentences(path, "test")
    assert isinstance(train, LabelledSentences)
    assert train.class_names == test.class_names == ("bad", "good", "so-so")
    assert np.bincount(test.labels).tolist() == [3, 3, 3]
    assert np.bincount(train.labels[train.held_out]).tolist() == [2, 2, 2]
    assert not {*train.sentences} & {*test.sentences}
    assert len({*train.sentences} | {*test.sentences}) == 45
    for sentence, label in zip(train.sentences, train.labels, strict=True):
        assert ROWS[int(sentence.split()[-1])].endswith(train.class_names[label])
    other = from_sentences(path, "test", seed=2)
    assert {*other.sentences} != {*test.sentences}


def test_own_sentences_may_name_their_split(tmp_path):
    rows = ["a,x,train", "b,y,train", '"c, d",x,validation', "e,y,test"]
    path = file_of(tmp_path, "\n".join(["text,label,split", *rows]), "mine.csv")
    train = from_sentences(path, "train")
    assert train.sentences.tolist() == ["a", "b", "c, d"] and train.held_out.tolist() == [2]
    assert from_sentences(path, "test").sentences.tolist() == ["e"]


@pytest.mark.parametrize(
    "header", ["text,label,Split", "Text,Label,Split", "TEXT, label ,SPLIT", "text,label,split"]
)
def test_columns_are_known_in_capitals(tmp_path, header):
    rows = ["a,x,train", "b,y,train", "e,y,test"]
    path = file_of(tmp_path, "\n".join([header, *rows]), "mine.csv")
    assert from_sentences(path, "test").sentences.tolist() == ["e"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("sentence,label\na,b", "has no column text"),
        ("a,b\nc,d", "has no column text and no column label"),
        ("text;label\na;b", "Received: 'text;label'. Separate columns by commas, not by ';'"),
        ("Label,TEXT,Text\na,b,c", "has no column text"),
        ("text,label\n,good\na,", "line 2 has no text; line 3 has no label"),
        ("text,label\none, two,good", "line 2 has more columns than the header"),
        ("text,label\nalone", "line 2 has no label"),
        ("text,label", "Received: no rows"),
        ("text,label,split\na,x,train\nb,y,dev", "line 3: the split is 'dev'"),
        ("text,label,split\na,x,train\nb,y,train", "names no row 'test'"),
        ("text,label,split\na,x,train\nb,y,train\nc,z,test", "the label(s) ['z'] are unknown"),
        ("text,label\na,x\nb,x\nc,y", "the label 'x' has 2 sentence(s)"),
        ("text,label\na,x\nb,x\nc,x", "expected at least two"),
        ("text,label\ncaf\u00e9,x".encode("latin-1"), "byte 0xE9 at place 14 (line 2"),
    ],
)  # fmt: skip
def test_what_is_no_csv_of_sentences(tmp_path, content, said):
    with pytest.raises(DataError) as error:
        from_sentences(file_of(tmp_path, content, "mine.csv"), "train")
    assert said in str(error.value) and "mine.csv" in str(error.value)


# === Tokens ===


def test_words_and_line_ends():
    tokenizer = Tokenizer("whitespace").adapted([" the cat \n the dog\n"])
    assert set(tokenizer.vocabulary) == {"the", "cat", "dog", "<eos>"}
    numbers = tokenizer.numbers(["the bird\n", "cat"])
    assert numbers.shape == (2, 3) and numbers.dtype == "int32"
    assert numbers[0, 1] == 1 and numbers[1, 1:].tolist() == [0, 0]
    assert tokenizer.joined(numbers[0]) == "the [UNK] <eos>"


def test_the_most_frequent_tokens_alone():
    tokenizer = Tokenizer("character").adapted(["aaabbc\n"], max_tokens=2)
    assert tokenizer.vocabulary == ("a", "b")
    assert tokenizer.numbers(["abc\u00e9"]).tolist() == [[2, 3, 1, 1]]


def test_standardize():
    tokenizer = Tokenizer("whitespace", "lower_and_strip_punctuation").adapted(
        ["The cat, the hat!"]
    )
    assert set(tokenizer.vocabulary) == {"the", "cat", "hat"}


@pytest.mark.parametrize(
    ("vocabulary", "split", "said"),
    [
        ([], "character", "at least one token"),
        ("abc", "character", "list of strings"),
        (["a", "bc"], "character", "'bc', which split='character' never gives"),
        (["a", "b c"], "whitespace", "'b c', which split='whitespace' never gives"),
        (["a", ""], "whitespace", "'', which"),
        (["a", "[UNK]"], "whitespace", "'\\[UNK\\]', which"),
        (["a", "b", "a"], "whitespace", "'a' twice"),
        ([1, 2], "whitespace", "list of strings"),
    ],
)
def test_what_is_no_vocabulary(vocabulary, split, said):
    with pytest.raises(ValueError, match=said):
        checked_vocabulary(vocabulary, split)


def test_a_csv_as_people_write_it(tmp_path):
    file = tmp_path / "mine.csv"
    rows = [f'"film {i}, part", "{("bad", "good")[i % 2]}"\n' for i in range(20)]
    file.write_text("\ufeffText, LABEL\n\n" + "\n".join(rows))
    train = from_sentences(file, "train")
    assert train.class_names == ("bad", "good") and "film 1, part" in {
        *train.sentences, *from_sentences(file, "test").sentences
    }  # fmt: skip
    file.write_text("text,label\na,x\n\n\nb,\n")
    with pytest.raises(DataError, match="line 5 has no label"):
        from_sentences(file, "train")


def test_sentences_that_train_and_test_are_named(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("text,label\n" + "the same film,good\n" * 10 + "another,bad\n" * 10)
    with pytest.warns(UserWarning, match="4 sentences train and test, which flatters the test"):
        from_sentences(file, "train")


@pytest.mark.parametrize(
    "rows",
    ['"never ends,yes\nfine,no\n', '"never ends,yes\nfine,no\nsaid "wow",no\n', '"a" b,yes\n'],
)
def test_a_quote_that_does_not_end_is_no_text(tmp_path, rows):
    """It would take all rows up to the next one into one text."""
    file = tmp_path / "mine.csv"
    good = "".join(f'good {i},yes\n"bad, so ""bad"" {i}",no\n' for i in range(8))
    file.write_text(f"text,label\n{good}{rows}")
    with pytest.raises(
        DataError, match="mine.csv cannot be read as CSV: the row from line 18 on: "
    ):
        from_sentences(file, "train")
    file.write_text(f"text,label\n{good}")
    assert 'bad, so "bad" 1' in from_sentences(file, "train").sentences


def test_spaces_behind_a_quote_and_blank_lines(tmp_path):
    file = tmp_path / "mine.csv"
    good = "".join(f'good {i},yes\n"bad, so {i}" , "no"\t\r\n' for i in range(8))
    file.write_text(f'"text" ,"label" \n\n{good}\n')
    train, test = from_sentences(file, "train"), from_sentences(file, "test")
    assert train.class_names == ("no", "yes") and len(train.labels) + len(test.labels) == 16
    assert "bad, so 1" in {*train.sentences, *test.sentences}
    file.write_text(f'text,label\n{good}\n\n\n"Great" film,yes\n')
    with pytest.raises(DataError, match="the row from line 21 on: ',' expected after"):
        from_sentences(file, "train")
