import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from mlmetric.labels import (
    binarize,
    check_labels,
    cooccurrence,
    label_array,
    label_counts,
    label_tensor,
    votes_to_labels,
)


def test_check_labels_given_class_ids_names_one_hot():
    with pytest.raises(ValueError, match=r"`labels` must be .* got shape \(3,\)\. Convert class ids with .*one_hot"):
        check_labels(torch.tensor([0, 2, 1]))


KINDS = {
    "list": lambda values: values.tolist(),
    "list of rows": list,
    "tensor": torch.from_numpy,
    "sparse tensor": lambda values: torch.from_numpy(values).to_sparse(),
    "sparse array": sparse.csr_array,
    "sparse matrix": sparse.coo_matrix,
    "frame": pd.DataFrame,
    "nullable frame": lambda values: pd.DataFrame(values).convert_dtypes(),
    "mixed frame": lambda values: pd.DataFrame(values).astype({0: bool, 1: "Int8", 2: "Float64"}),
    "objects": lambda values: values.astype(object),
    "numpy bools": lambda values: np.array([[np.bool_(v) for v in row] for row in values], dtype=object),
    "bool": lambda values: values.astype(bool),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_any_type_are_read_as_the_same_matrix(kind):
    values = np.array([[1, 0, 1], [0, 1, 0]])
    labels = KINDS[kind](values)
    read = check_labels(labels)
    assert isinstance(read, torch.Tensor if "tensor" in kind else np.ndarray)
    np.testing.assert_array_equal(np.asarray(read), values)
    np.testing.assert_array_equal(np.asarray(label_counts(labels)), [1, 1, 1])
    np.testing.assert_array_equal(np.asarray(cooccurrence(labels)), values.T @ values)
    assert label_tensor(labels).tolist() == values.tolist()
    array = label_array(labels)
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, values)
    assert np.asarray(votes_to_labels(labels)).tolist() == values.tolist()
    assert np.asarray(votes_to_labels(labels, [1, 2])).tolist() == [[1, 0, 1], [0, 0.5, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tensor_becomes_an_array(dtype):
    labels = torch.tensor([[1.0, 0.5]], dtype=dtype, requires_grad=True)
    assert label_array(labels).tolist() == [[1, 0.5]]


def test_tensors_and_arrays_are_returned_as_they_are():
    for labels in (torch.tensor([[1, 0]]), np.array([[1.0, 0.5]])):
        assert check_labels(labels) is labels


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_arrays_of_dtypes_that_torch_barely_supports_become_a_tensor(dtype):
    labels = np.array([[1, 0], [0, 1]], dtype=dtype)[::-1]
    labels.setflags(write=False)
    assert (label_tensor(labels) == torch.tensor([[0, 1], [1, 0]])).all()


@pytest.mark.parametrize("dtype", [">u1", ">i4", ">u2", ">f4", ">f8", np.longdouble])
def test_arrays_of_dtypes_without_a_tensor_become_a_tensor(dtype):
    labels = label_tensor(np.array([[1, 0], [0, 1]], dtype=dtype))
    assert labels.tolist() == [[1, 0], [0, 1]]


def test_label_tensor_shares_memory_with_an_array():
    labels = np.zeros((2, 2), dtype=np.float32)
    assert label_tensor(labels).data_ptr() == labels.ctypes.data


FLOAT8 = [getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2")]


@pytest.mark.parametrize("to_layout", [torch.Tensor.clone, torch.Tensor.to_sparse])
@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, *FLOAT8])
def test_tensors_that_torch_does_not_compare_are_converted(dtype, to_layout):
    labels = to_layout(torch.tensor([[1, 0], [0, 1]])).to(dtype)
    read = check_labels(labels)
    assert read.dtype == (torch.float32 if dtype in FLOAT8 else torch.int64)
    assert read.tolist() == label_array(labels).tolist() == votes_to_labels(labels).tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="got 2"):
        check_labels(torch.tensor([[2]]).to(dtype))


COMPLEX = np.array([[1, 0j]])


@pytest.mark.parametrize("labels", [torch.from_numpy(COMPLEX), COMPLEX, sparse.csr_array(COMPLEX)], ids=type)
def test_complex_labels_raise_an_error(labels):
    with pytest.raises(TypeError, match=r"`y` must contain .*got .*complex128"):
        check_labels(labels, name="y")


@pytest.mark.parametrize("convert", [list, lambda rows: np.array(rows, dtype=object)])
def test_none_is_a_missing_entry(convert):
    with pytest.raises(ValueError, match=r"`y` must contain numbers in \[0, 1\], got nan at row 1, label 0"):
        check_labels(convert([[1, 0], [None, 1]]), name="y")


@pytest.mark.parametrize(
    "names",
    [
        [["sea", "sun"], ["sea"]],
        [["sea", "sun"], ["sea", "sky"]],
        [{"sea"}, {"sun"}],
        ["sea", "sun"],
        np.array([["sea", "sun"]]),
        np.array([["sea", 1]], dtype=object),
        "sea",
        None,
    ],
    ids=str,
)
def test_label_names_raise_one_error(names):
    with pytest.raises(
        TypeError, match=r"`y` must contain numbers, 0 or 1 for each label of each row, got .*MultiLabelB"
    ):
        check_labels(names, name="y")


@pytest.mark.parametrize(("bad", "shown"), [(2.0, r"2\.0"), (-0.5, r"-0\.5"), (float("nan"), "nan")])
@pytest.mark.parametrize("as_array", [False, True])
def test_check_labels_outside_0_1_names_the_entry(bad, shown, as_array):
    labels = torch.tensor([[0.0, 1.0], [bad, 1.0]])
    with pytest.raises(ValueError, match=rf"in \[0, 1\], got {shown} at row 1, label 0"):
        check_labels(labels.numpy() if as_array else labels)


@pytest.mark.parametrize(("bad", "step"), [(3, "votes_to_labels"), (-1, "such as by `y > 0`")])
def test_check_labels_outside_0_1_names_the_next_step(bad, step):
    with pytest.raises(ValueError, match=rf"got {bad} at row 1, label 0\. .*{step}"):
        check_labels([[0, 1], [bad, 1]], name="y")


def test_label_names_of_different_numbers_end_the_reason_with_one_full_stop():
    with pytest.raises(TypeError, match=r"inhomogeneous.*[^.]\. Convert label names"):
        check_labels([["sea", "sun"], ["sea"]], name="y")


def test_check_labels_without_validation_accepts_all_values():
    labels = torch.tensor([[7.0]])
    assert check_labels(labels, validate_args=False) is labels


@pytest.mark.parametrize("index", [3, -1])
def test_binarize_index_outside_names_row_and_index(index):
    with pytest.raises(ValueError, match=rf"`label_sets\[1\]` contains label {index}, outside 0 to 2"):
        binarize([[0], [index]], num_labels=3)


@pytest.mark.parametrize(
    "row", [["sea"], "sea", {"sea", "sun"}, [0, "sea"], [0.0], [True, False, True], [None], 2, torch.tensor([1.0])]
)
def test_binarize_of_anything_but_indices_names_the_row_and_multi_label_binarizer(row):
    shown = re.escape(f"{row!r:.60}")
    with pytest.raises(TypeError, match=rf"`label_sets\[1\]` must contain .*, got {shown}\..*MultiLabelBinarizer"):
        binarize([[0], row], 3)


def test_binarize_accepts_integers_of_any_type():
    rows = [np.array([0, 2], dtype=np.uint8), torch.tensor([0, 2]), {0, 2}, (np.int64(2), 0), iter([0, 2])]
    assert binarize(rows, 3).tolist() == [[1, 0, 1]] * 5


def test_binarize_of_no_rows_has_the_columns():
    assert binarize([], num_labels=4).shape == (0, 4)


def test_votes_to_labels_union_and_agreement_differ():
    votes = np.array([[2, 1, 0]])
    assert votes_to_labels(votes).tolist() == [[1, 1, 0]]
    assert votes_to_labels(votes, min_votes=2).tolist() == [[1, 0, 0]]


def test_votes_to_labels_soft_is_votes_over_annotators_as_float32():
    soft = votes_to_labels(np.array([[2, 1, 0], [4, 0, 4]]), np.array([2, 4]))
    assert soft.dtype == np.float32
    assert soft.tolist() == [[1.0, 0.5, 0.0], [1.0, 0.0, 1.0]]


def test_votes_to_labels_more_votes_than_annotators_is_an_error():
    with pytest.raises(ValueError, match=r"`votes / num_annotators` must contain numbers in \[0, 1\], got 1\.5"):
        votes_to_labels(torch.tensor([[3, 1]]), torch.tensor([2]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_votes_to_labels_soft_does_not_depend_on_the_dtype_of_the_votes(dtype):
    soft = votes_to_labels(torch.tensor([[1, 2, 0]]).to(dtype), torch.tensor([3]))
    assert soft.tolist() == torch.tensor([[1 / 3, 2 / 3, 0]]).tolist()
    if dtype != torch.bfloat16:
        votes = torch.tensor([[1, 2, 0]]).to(dtype).numpy()
        assert votes_to_labels(votes, np.array([3], dtype=np.uint8)).tolist() == soft.tolist()


def test_votes_to_labels_bad_arguments_are_named():
    for votes in (torch.tensor([3, 1]), torch.tensor([[3, -1]])):
        with pytest.raises(ValueError, match="`votes` must be a matrix"):
            votes_to_labels(votes)
    with pytest.raises(ValueError, match="`min_votes` must be at least 1, got 0"):
        votes_to_labels(torch.tensor([[3, 1]]), min_votes=0)
    with pytest.raises(ValueError, match="`min_votes` must be at least 1, got nan"):
        votes_to_labels(torch.tensor([[3, 1]]), min_votes=float("nan"))
    with pytest.raises(ValueError, match=r"`num_annotators` must have shape \(1,\).*got \(2,\)"):
        votes_to_labels(torch.tensor([[3, 1]]), torch.tensor([2, 2]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32])
def test_counts_and_cooccurrence_do_not_overflow_or_round_in_small_dtypes(dtype):
    labels = torch.ones(3000, 2).to(dtype)
    assert label_counts(labels).tolist() == [3000.0, 3000.0]
    assert cooccurrence(labels).tolist() == [[3000.0, 3000.0], [3000.0, 3000.0]]


def test_counts_and_cooccurrence_of_an_array_are_arrays():
    labels = np.array([[1, 0], [1, 1]], dtype=np.uint8)
    assert isinstance(label_counts(labels), np.ndarray)
    assert cooccurrence(labels).tolist() == [[2.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize("function", [label_counts, cooccurrence])
@pytest.mark.parametrize(("bad", "shown"), [(float("nan"), "nan"), (2.0, r"2\.0")])
def test_counts_and_cooccurrence_of_labels_outside_0_1_raise(function, bad, shown):
    labels = torch.tensor([[0.0, 1.0], [bad, 1.0]])
    for same in (labels, labels.numpy()):
        with pytest.raises(
            ValueError, match=rf"`labels` must contain numbers in \[0, 1\], got {shown} at row 1, label 0"
        ):
            function(same)


@pytest.mark.parametrize("num_labels", [-1, 3.0, "3", True])
def test_binarize_into_no_number_of_labels_raises(num_labels):
    with pytest.raises(ValueError, match=rf"`num_labels` must be an integer of at least 0, got {num_labels!r}"):
        binarize([[1]], num_labels)


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean"])
def test_missing_value_of_a_data_frame_names_the_entry(dtype):
    with pytest.raises(ValueError, match=r"`labels` must contain numbers in \[0, 1\], got nan at row 1, label 0"):
        check_labels(pd.DataFrame({"sea": pd.array([1, None], dtype=dtype)}))
