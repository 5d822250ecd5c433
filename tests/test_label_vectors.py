"""Label vectors: PPMI against loops, and files of word vectors in all formats, complete, truncated and invalid."""

import logging
import math
import os
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from mlmetric.label_vectors import cooccurrence_vectors, read_word_vectors

PALM = {"palm": [1.0, 0.0], "tree": [0.0, 1.0], "sea": [2.0, 2.5]}


# Vectors from cooccurrence


def ppmi_by_loops(labels):
    """Positive pointwise mutual information, pair by pair, from the definition: max(0, log P(i, j) / (P(i) P(j)))."""
    rows = [[float(share) for share in row] for row in labels]
    num_labels = labels.shape[1]
    ppmi = np.zeros((num_labels, num_labels))
    for i in range(num_labels):
        for j in range(num_labels):
            both = sum(row[i] * row[j] for row in rows)
            if both > 0:
                p_i, p_j = (sum(row[label] for row in rows) / len(rows) for label in (i, j))
                ppmi[i, j] = max(0.0, math.log(both / len(rows) / (p_i * p_j)))
    return ppmi


def best_semidefinite(matrix, rank):
    """The nearest positive semi-definite matrix of a rank at most `rank`, by its largest positive eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    order = [index for index in np.argsort(-values)[:rank] if values[index] > 0]
    return sum(
        (values[index] * np.outer(vectors[:, index], vectors[:, index]) for index in order), np.zeros_like(matrix)
    )


def inner_products(vectors):
    return (vectors.double() @ vectors.double().T).numpy()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, None])
def test_cooccurrence_vectors_have_the_best_inner_products_of_their_rank(size, generator):
    labels = (torch.rand(40, 6, generator=generator) < torch.tensor([0.2, 0.3, 0.4, 0.5, 0.3, 0.2])).long()
    vectors = cooccurrence_vectors(labels, size)
    assert vectors.dtype == torch.float32
    assert vectors.shape == (6, size or 6)
    expected = best_semidefinite(ppmi_by_loops(labels), size or 6)
    np.testing.assert_allclose(inner_products(vectors), expected, atol=1e-6)


def test_cooccurrence_vectors_of_soft_labels_count_shares(generator):
    soft = torch.rand(30, 5, generator=generator) ** 3
    assert np.linalg.eigvalsh(ppmi_by_loops(soft)).max() > 0.5
    expected = best_semidefinite(ppmi_by_loops(soft), 5)
    for labels in (soft, soft.double()):
        np.testing.assert_allclose(inner_products(cooccurrence_vectors(labels)), expected, atol=1e-6)


def test_cooccurrence_vectors_omit_a_negative_eigenvalue():
    # Among N rows, nearly all empty, one has labels 0 and 1, another 1 and 2. PPMI of label 0 and of label 2 with
    # itself is log N, of label 1 with itself, with 0 and with 2 log(N / 2), of 0 with 2, which never meet, 0. In units
    # of log N that tends to [[1, 1, 0], [1, 1, 1], [0, 1, 1]], whose least eigenvalue is 1 - sqrt(2).
    labels = torch.zeros(10_000, 3)
    labels[0, :2] = 1
    labels[1, 1:] = 1
    ppmi = ppmi_by_loops(labels)
    assert np.linalg.eigvalsh(ppmi).min() < -1
    np.testing.assert_allclose(
        inner_products(cooccurrence_vectors(labels)), best_semidefinite(ppmi, 3), atol=1e-5, rtol=0
    )


def test_cooccurrence_vectors_of_labels_in_no_row_or_every_row_are_zero():
    # Label 2 never occurs, label 3 occurs in every row: neither has information about other labels.
    labels = torch.tensor([[1, 1, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]])
    vectors = cooccurrence_vectors(labels)
    assert vectors[2].tolist() == vectors[3].tolist() == [0, 0, 0, 0]
    assert (vectors[:2].norm(dim=1) > 0.5).all()


def test_cooccurrence_vectors_of_labels_in_no_row_or_every_row_are_exactly_zero_among_many_others(generator):
    # No rounding errors such as 1e-9: normalised to unit length they would be a random vector.
    for _ in range(20):
        labels = (torch.rand(30, 8, generator=generator) < 0.3).long()
        labels[:, 3], labels[:, 5] = 0, 1
        vectors = cooccurrence_vectors(labels)
        assert vectors[[3, 5]].count_nonzero() == 0


def test_cooccurrence_vector_of_a_label_that_is_always_alone_has_only_its_own_ppmi():
    labels = torch.tensor([[1, 0], [1, 0], [1, 0], [0, 1]])
    expected = np.diag([math.log(4 / 3), math.log(4)])
    np.testing.assert_allclose(inner_products(cooccurrence_vectors(labels)), expected, atol=1e-6)


def test_cooccurrence_vectors_without_any_label_are_zero():
    assert cooccurrence_vectors(torch.zeros(5, 3)).tolist() == [[0.0] * 3] * 3
    assert cooccurrence_vectors(torch.zeros(0, 3, dtype=torch.uint8), size=2).tolist() == [[0.0] * 2] * 3


@pytest.mark.parametrize("convert", [torch.Tensor.numpy, torch.Tensor.tolist, lambda rows: sparse.csr_array(rows)])
def test_cooccurrence_vectors_take_labels_of_every_kind(convert, generator):
    labels = (torch.rand(40, 6, generator=generator) < 0.3).long()
    assert torch.equal(cooccurrence_vectors(convert(labels), 3), cooccurrence_vectors(labels, 3))
    with pytest.raises(TypeError, match=r"`labels` must .*MultiLabelBinarizer"):
        cooccurrence_vectors([["a"], ["a", "b"]])


def test_cooccurrence_vectors_take_one_label():
    assert cooccurrence_vectors(torch.tensor([[1], [0]])).item() == pytest.approx(math.sqrt(math.log(2)))


def test_cooccurrence_vectors_fix_signs_so_that_the_order_of_labels_does_not_matter(generator):
    labels = (torch.rand(50, 6, generator=generator) < 0.3).long()
    vectors = cooccurrence_vectors(labels, size=3)
    assert (vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)) > 0).all()
    for _ in range(10):
        order = torch.randperm(6, generator=generator)
        torch.testing.assert_close(cooccurrence_vectors(labels[:, order], size=3), vectors[order], atol=1e-5, rtol=0)


def test_cooccurrence_vectors_of_the_same_counts_are_the_same_to_the_bit(generator):
    labels = (torch.rand(50, 6, generator=generator) < 0.3).long()
    vectors = cooccurrence_vectors(labels)
    shuffled = labels[torch.randperm(50, generator=generator)]
    for other in (labels.bool(), labels.double(), labels.T.contiguous().T, shuffled):
        assert torch.equal(cooccurrence_vectors(other), vectors)


@given(labels=hnp.arrays(np.uint8, st.tuples(st.integers(0, 7), st.integers(1, 6)), elements=st.integers(0, 1)))
def test_cooccurrence_vectors_of_any_labels_are_finite_and_approach_ppmi(labels):
    vectors = cooccurrence_vectors(torch.from_numpy(labels))
    assert vectors.isfinite().all()
    ppmi = ppmi_by_loops(labels)
    np.testing.assert_allclose(inner_products(vectors), best_semidefinite(ppmi, len(ppmi)), atol=1e-5)


@pytest.mark.parametrize("size", [0, -1, 4])
def test_cooccurrence_vectors_name_a_size_out_of_range(size):
    with pytest.raises(ValueError, match=rf"`size` must be between 1 and the number of labels, 3, got {size}\."):
        cooccurrence_vectors(torch.eye(3), size)


def test_cooccurrence_vectors_reject_what_is_not_a_label_matrix():
    with pytest.raises(ValueError, match=r"`labels` must be a 2-D multi-hot matrix .* got shape \(3,\)"):
        cooccurrence_vectors(torch.ones(3))
    with pytest.raises(ValueError, match=r"the number of labels, 0, got 0\."):
        cooccurrence_vectors(torch.ones(3, 0))


@pytest.mark.parametrize(("entry", "shown"), [(2.0, "2.0"), (-1.0, "-1.0"), (float("nan"), "nan")])
def test_cooccurrence_vectors_reject_numbers_outside_0_to_1(entry, shown):
    with pytest.raises(ValueError, match=rf"numbers in \[0, 1\], got {shown} at row 1, label 0"):
        cooccurrence_vectors(torch.tensor([[1.0, 0.0], [entry, 1.0]]))


# Files of word vectors


def glove(words):
    return b"".join(
        word.encode() + b" " + " ".join(str(number) for number in vector).encode() + b"\n"
        for word, vector in words.items()
    )


def header(words):
    return f"{len(words)} {len(next(iter(words.values())))}\n".encode()


def word2vec_text(words):
    return header(words) + glove(words)


def word2vec_text_with_trailing_spaces(words):
    """As the program word2vec itself writes it."""
    return header(words) + glove(words).replace(b"\n", b" \n")


def word2vec_binary(words, separator=b"\n"):
    return header(words) + b"".join(
        word.encode() + b" " + struct.pack(f"<{len(vector)}f", *vector) + separator for word, vector in words.items()
    )


def word2vec_binary_without_newlines(words):
    return word2vec_binary(words, separator=b"")


KINDS = [glove, word2vec_text, word2vec_text_with_trailing_spaces, word2vec_binary, word2vec_binary_without_newlines]
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def write(tmp_path):
    def write_file(content):
        path = tmp_path / "vectors"
        path.write_bytes(content)
        return path

    return write_file


@every_kind
def test_read_word_vectors_of_every_kind_are_those_of_the_file(kind, write):
    path = write(kind(PALM | {"desert": [-3.0, 0.25]}))
    for argument in (path, str(path)):
        found = read_word_vectors(argument, ["desert", "sea"])
        assert found.vectors.dtype == torch.float32
        assert found.vectors.tolist() == [[-3.0, 0.25], [2.0, 2.5]]
        assert found.missing == found.missing_words == ()


@every_kind
def test_read_word_vectors_of_one_entry_and_of_one_number_each(kind, write):
    assert read_word_vectors(write(kind({"sea": [1.5, -2.0, 3.0]})), ["sea"]).vectors.tolist() == [[1.5, -2.0, 3.0]]
    assert read_word_vectors(write(kind({"sea": [1.5], "sun": [2.5]})), ["sun"]).vectors.tolist() == [[2.5]]


words_of_a_file = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=5)


@given(
    words=st.lists(words_of_a_file, min_size=1, max_size=5, unique=True),
    numbers=hnp.arrays(np.float32, (5, 7), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    kind=st.sampled_from(KINDS),
)
def test_read_word_vectors_gives_back_any_words_and_numbers(words, numbers, kind, tmp_path_factory):
    # Among the bytes of these numbers are newlines and spaces, which end nothing in a binary file.
    numbers[~numbers.any(axis=1), 0] = 1  # a word of zeros counts as missing
    path = tmp_path_factory.mktemp("words") / "vectors"
    path.write_bytes(kind({word: vector.tolist() for word, vector in zip(words, numbers, strict=False)}))
    found = read_word_vectors(path, words)
    assert found.missing == ()
    assert found.vectors.tolist() == numbers[: len(words)].tolist()


def test_read_word_vectors_of_a_binary_file_with_newlines_and_spaces_among_the_numbers(write):
    awkward = struct.unpack("<3f", b"\n\n\n\n    \n \n ")
    words = {"sea": awkward, "sun": [1.0, 2.0, 3.0]}
    for kind in (word2vec_binary, word2vec_binary_without_newlines):
        assert read_word_vectors(write(kind(words)), ["sun", "sea"]).vectors.tolist() == [[1, 2, 3], list(awkward)]


@every_kind
@pytest.mark.parametrize("name", ["palm tree", "palm_tree", "palm-tree", "Palm Tree", "PALM  TREE ", "palm/tree"])
def test_read_word_vectors_of_a_name_of_two_words_is_their_mean(kind, name, write):
    found = read_word_vectors(write(kind(PALM)), [name])
    assert found.vectors.tolist() == [[0.5, 0.5]]
    assert found.missing == found.missing_words == ()


@every_kind
@pytest.mark.parametrize("name", ["palm tree", "palm_tree", "palm-tree", "Palm Tree"])
def test_read_word_vectors_takes_a_name_that_the_file_has_whole_before_the_mean(kind, name, write):
    path = write(kind(PALM | {"palm_tree": [9.0, 8.0]}))
    assert read_word_vectors(path, [name]).vectors.tolist() == [[9.0, 8.0]]


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ("palm-tree", ["palm-tree", "Palm-Tree"]),
        ("Palm_Tree", ["Palm Tree", "Palm-Tree", "Palm_Tree"]),
        ("palm tree", ["palm tree", "Palm Tree"]),
    ],
)
def test_read_word_vectors_takes_a_whole_name_as_it_is_written(entry, names, write):
    path = write(glove(PALM | {entry: [9.0, 8.0]}))
    assert read_word_vectors(path, names).vectors.tolist() == [[9.0, 8.0]] * len(names)


def test_read_word_vectors_of_glove_with_spaces_in_words_keeps_words_and_numbers_apart(write):
    words = {"sea": [1.0, 2.0, 3.0], ". . .": [4.0, 5.0, 6.0], "at name@domain.com": [7.0, 8.0, 9.0], "name": [0, 0, 1]}
    found = read_word_vectors(write(glove(words)), ["name", ". . .", "at name@domain.com", "at sea"])
    assert found.vectors.tolist() == [[0, 0, 1], [4, 5, 6], [7, 8, 9], [1, 2, 3]]
    assert found.missing_words == ("at",)


def test_read_word_vectors_prefers_a_word_as_written_to_lower_case(write):
    path = write(glove({"Rose": [1.0, 1.0], "rose": [2.0, 2.0]}))
    assert read_word_vectors(path, ["Rose", "rose", "ROSE"]).vectors.tolist() == [[1, 1], [2, 2], [2, 2]]


def test_read_word_vectors_reports_what_is_missing(write, caplog):
    with caplog.at_level(logging.WARNING):
        found = read_word_vectors(write(glove(PALM)), ["Oil Palm", "sea", "desert", "old wet Tree", "sand dune"])
    assert found.vectors.tolist() == [[1, 0], [2, 2.5], [0, 0], [0, 1], [0, 0]]
    assert found.missing == ("desert", "sand dune")
    assert found.missing_words == ("Oil", "old", "wet")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("mlmetric.label_vectors", logging.WARNING)
    expected = "no vector for 2 labels (desert, sand dune), and for 3 words of other labels (Oil, old, wet)"
    assert expected in record.getMessage()


def test_read_word_vectors_logs_nothing_if_nothing_is_missing(write, caplog):
    with caplog.at_level(logging.DEBUG):
        read_word_vectors(write(glove(PALM)), ["palm tree", "sea"])
    assert caplog.records == []


def test_read_word_vectors_gives_each_of_two_labels_of_one_name_a_row(write):
    found = read_word_vectors(write(glove(PALM)), ["sea", "desert", "sea", "desert"])
    assert found.vectors.tolist() == [[2, 2.5], [0, 0], [2, 2.5], [0, 0]]
    assert found.missing == ("desert", "desert")


@every_kind
def test_read_word_vectors_reads_words_in_utf_8(kind, write):
    found = read_word_vectors(write(kind({"café": [1.0, 2.0], "海": [3.0, 4.0]})), ["海", "CAFÉ"])
    assert found.vectors.tolist() == [[3, 4], [1, 2]]


@every_kind
def test_read_word_vectors_skips_words_that_are_not_utf_8(kind, write):
    path = write(kind(PALM | {"cafX": [7.0, 7.0], "zoo": [5.0, 6.0]}).replace(b"cafX", b"caf\xe9"))
    assert read_word_vectors(path, ["zoo", "sea"]).vectors.tolist() == [[5, 6], [2, 2.5]]


def test_read_word_vectors_takes_windows_line_ends(write):
    for kind in (glove, word2vec_text):
        path = write(kind(PALM).replace(b"\n", b"\r\n"))
        assert read_word_vectors(path, ["tree", "sea"]).vectors.tolist() == [[0, 1], [2, 2.5]]


@every_kind
def test_read_word_vectors_with_none_of_the_labels_is_rejected(kind, write):
    with pytest.raises(ValueError, match=r"vectors contains none of the 2 label names; the first is 'sky blue'\."):
        read_word_vectors(write(kind(PALM)), ["sky blue", "desert"])


def test_read_word_vectors_of_an_empty_file_is_rejected(write):
    with pytest.raises(ValueError, match="none of the 1 label names; the first is 'sea'"):
        read_word_vectors(write(b""), ["sea"])
    with pytest.raises(ValueError, match="none of the 1 label names; the first is 'sea'"):
        read_word_vectors(write(b"0 300\n"), ["sea"])


def test_read_word_vectors_without_labels_is_rejected(write):
    with pytest.raises(ValueError, match="`label_names` must have at least one name, got none"):
        read_word_vectors(write(glove(PALM)), [])


@pytest.mark.parametrize("kind", [glove, word2vec_text])
def test_read_word_vectors_of_a_text_file_that_ends_within_an_entry_raises(kind, write):
    truncated = kind(PALM)[: -len(" 2.5\n")]
    with pytest.raises(
        ValueError,
        match=r"vectors is not a file of word vectors: entry 3 is b'sea 2\.0', expected a word and 2 numbers",
    ):
        read_word_vectors(write(truncated), ["palm"])


def test_read_word_vectors_of_a_text_file_with_a_word_among_the_numbers_names_it(write):
    with pytest.raises(ValueError, match="text other than numbers for 'tree' in entry 2"):
        read_word_vectors(write(b"sea 1 2\ntree one 2\n"), ["tree"])
    with pytest.raises(ValueError, match="text other than numbers for 'palm' in entry 3"):  # a truncated "palm tree"
        read_word_vectors(write(b"2 2\nsea 1 2\ntree 1 2\npalm tree 1\n"), ["palm tree"])


@pytest.mark.parametrize("kind", [glove, word2vec_text])
def test_read_word_vectors_of_a_text_file_that_ends_in_a_number_is_rejected(kind, write):
    for truncated in (kind(PALM)[:-1], kind(PALM)[: -len("5\n")], kind(PALM)[: -len(".5\n")]):
        with pytest.raises(ValueError, match=r"vectors ends in entry 3, b'sea 2\.0 2.*newline: .* be incomplete"):
            read_word_vectors(write(truncated), ["palm"])


def test_read_word_vectors_of_a_text_file_with_fewer_words_than_its_first_line_states_is_rejected(write):
    whole = word2vec_text(PALM)
    with pytest.raises(ValueError, match=r"vectors ends after word 2 of the 3 that its first line states\."):
        read_word_vectors(write(whole[: whole.index(b"sea")]), ["palm"])


@every_kind
@pytest.mark.parametrize(("bad", "shown"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_read_word_vectors_of_a_label_that_are_not_finite_names_the_word(kind, bad, shown, write):
    path = write(kind(PALM | {"zoo": [1.0, bad]}))
    with pytest.raises(ValueError, match=rf"vectors must contain finite numbers, got {shown} for 'zoo'\."):
        read_word_vectors(path, ["sea", "zoo"])
    assert read_word_vectors(path, ["sea"]).vectors.tolist() == [[2, 2.5]]


def test_read_word_vectors_beyond_float32_is_rejected(write):
    with pytest.raises(ValueError, match=r"vectors must contain finite numbers, got inf for 'sea'\."):
        read_word_vectors(write(b"sea 1e39 1\n"), ["sea"])


@every_kind
def test_read_word_vectors_of_zeros_counts_as_missing(kind, write):
    found = read_word_vectors(write(kind(PALM | {"zoo": [0.0, 0.0]})), ["zoo", "palm zoo", "sea"])
    assert found.vectors.tolist() == [[0, 0], [1, 0], [2, 2.5]]
    assert (found.missing, found.missing_words) == (("zoo",), ("zoo",))


@every_kind
def test_read_word_vectors_takes_the_mean_of_the_largest_numbers(kind, write):
    largest = float(np.finfo(np.float32).max)
    path = write(kind({"palm": [largest, 1.0], "tree": [largest, 2.0]}))
    assert read_word_vectors(path, ["palm tree"]).vectors.tolist() == [[largest, 1.5]]


@pytest.mark.parametrize("size", [0, 5_000_000_000, 10**17])
@pytest.mark.parametrize("kind", [word2vec_text, word2vec_binary])
def test_read_word_vectors_longer_than_the_file_are_rejected(kind, size, write):
    path = write(kind(PALM).replace(b"3 2\n", b"3 %d\n" % size))
    with pytest.raises(ValueError, match=rf"states 3 words of {size} numbers each, but only \d+ bytes follow"):
        read_word_vectors(path, ["sea"])


def test_read_word_vectors_with_a_first_line_of_thousands_of_digits_is_an_entry(write):
    path = write(b"3 " + b"9" * 5000 + b"\nsea 2\n")
    assert read_word_vectors(path, ["sea"]).vectors.tolist() == [[2.0]]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_read_word_vectors_of_a_named_pipe_is_rejected(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"pipe is not a regular file\."):
        read_word_vectors(tmp_path / "pipe", ["sea"])


@pytest.mark.parametrize("kind", [word2vec_binary, word2vec_binary_without_newlines])
def test_read_word_vectors_of_a_truncated_binary_file_names_its_last_word(kind, write):
    whole = kind(PALM)
    start_of_tree, start_of_sea = whole.index(b"tree "), whole.index(b"sea ")
    for end, number in [
        (start_of_sea, 3),
        (start_of_sea + 2, 3),
        (start_of_sea + 4, 3),
        (start_of_sea + 4 + 7, 3),
        (start_of_tree + 1, 2),
        (start_of_tree + 5 + 4, 2),
    ]:
        with pytest.raises(ValueError, match=rf"vectors ends in word {number} of the 3 that its first line states\."):
            read_word_vectors(write(whole[:end]), ["palm", "tree", "sea"])


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01", r"b'\\x89PNG"),
        (b"\x1f\x8b\x08\x00 gzip \xff\xff\n", r"b'\\x1f\\x8b"),
        (b"A letter to whom it may concern\n\nsea\n", "b'A letter to"),
        (b'{"sea": [1, 2]}\n', "b'{"),
        (b"sea\n1\n2\n", r"b'sea\\n'"),
        (b"\nsea 1 2\n", r"b'\\n'"),
        (b"sea\t1\t2\ntree\t1\t2\n", r"b'sea\\t1"),
    ],
)
def test_read_word_vectors_of_another_kind_of_file_shows_how_it_begins(content, shown, write):
    with pytest.raises(ValueError, match=rf"vectors is not a file of word vectors: entry 1 is {shown}"):
        read_word_vectors(write(content), ["sea"])


def test_read_word_vectors_of_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_word_vectors(tmp_path / "nowhere", ["sea"])
    with pytest.raises(IsADirectoryError):
        read_word_vectors(tmp_path, ["sea"])


def test_read_word_vectors_whose_words_cancel_count_as_missing(write):
    found = read_word_vectors(write(glove({"sea": [1.0, 0.0], "blue": [-1.0, 0.0]})), ["sea", "sea blue"])
    assert found.vectors.tolist() == [[1, 0], [0, 0]]
    assert found.missing == ("sea blue",)
