"""Views of rows: their columns, and the matrix that joins them."""

import numpy as np
import pytest
import torch
from scipy import sparse

from mlmetric._views import check_missing_views, read_views, view_presence
from mlmetric.data import join_views
from mlmetric.training._mixup_batches import MixupRows

NAN = float("nan")


def test_columns_may_be_open_negative_or_pairs_and_are_ordered():
    views = read_views({"text": slice(-2, None), "image": slice(None, 3), "table": (3, 4)}, 6)
    assert list(views.items()) == [("image", slice(0, 3)), ("table", slice(3, 4)), ("text", slice(4, 6))]


@pytest.mark.parametrize(
    ("views", "error", "text"),
    [
        (["a"], TypeError, "must map names to slices"),
        ({1: slice(0, 4)}, TypeError, "must map names"),
        ({}, ValueError, "at least one view"),
        ({"a": 4}, TypeError, r"`views\['a'\]` must be a slice"),
        ({"a": slice("x", None)}, TypeError, "whole numbers"),
        ({"a": slice(0, 0), "b": slice(0, 4)}, ValueError, "at least one of 4 columns"),
        ({"a": slice(0, 4, 2)}, ValueError, "without a step"),
        ({"a": slice(0, 9)}, ValueError, "one of 4 columns"),
        ({"a": slice(0, 3), "b": slice(2, 4)}, ValueError, "'a' and 'b' share column 2"),
        ({"a": slice(0, 3)}, ValueError, "column 3 is in no view"),
        ({"a": slice(0, 1), "b": slice(2, 4)}, ValueError, "column 1 is in no view"),
        ({"a/b": slice(0, 4)}, ValueError, "without /"),
        ({"": slice(0, 4)}, ValueError, "without /"),
    ],
)
def test_wrong_views(views, error, text):
    with pytest.raises(error, match=text):
        read_views(views, 4)


def test_presence_and_its_check():
    views = read_views({"a": slice(0, 2), "b": slice(2, 3)}, 3)
    rows = torch.tensor([[1, 2, 3], [1, 2, NAN], [NAN, NAN, 3]])
    assert view_presence(rows, views).tolist() == [[True, True], [True, False], [False, True]]
    check_missing_views(rows, views)
    with pytest.raises(ValueError, match="row 1 has 1 NaN in 2 columns of the view 'a'"):
        check_missing_views(torch.tensor([[1.0, 2, 3], [1, NAN, 3]]), views)
    with pytest.raises(ValueError, match=r"1 of 2 have none; the first is row 1\."):
        check_missing_views(torch.tensor([[1.0, 2, 3], [NAN, NAN, NAN]]), views)


def test_join_views():
    a, b = np.arange(6.0).reshape(3, 2), np.array([[7.0], [np.nan], [9.0]])
    X, views = join_views({"a": a, "b": b}, present={"a": np.array([True, True, False])})
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X, np.array([[0, 1, 7], [2, 3, np.nan], [np.nan, np.nan, 9]], dtype=np.float32))
    assert views == {"a": slice(0, 2), "b": slice(2, 3)}
    assert a[2, 0] == 4  # the argument is unchanged
    assert join_views([a, b])[1] == {"0": slice(0, 2), "1": slice(2, 3)}
    broken = np.array([[np.inf, 0], [1, 2]])
    assert np.isnan(join_views([broken], present=[np.array([False, True])])[0][0]).all()


@pytest.mark.parametrize("matrix", [sparse.csr_matrix(np.eye(2)), [["a"], ["b"]], [[1.0, 2.0], [3.0]]])
def test_view_that_is_no_dense_matrix_of_numbers(matrix):
    with pytest.raises(TypeError, match=f"The view 'a' must be a dense matrix of numbers, got {type(matrix).__name__}"):
        join_views({"a": matrix})


@pytest.mark.parametrize(
    ("features", "present", "text"),
    [
        ({}, None, "at least one view"),
        ({"a": [1.0, 2.0]}, None, r"'a' must have shape \(n, D\)"),
        ({"a": np.zeros((2, 0))}, None, "D >= 1"),
        ({"a": np.zeros((2, 1)), "b": np.zeros((3, 1))}, None, "'a' has 2, and 'b' 3"),
        ({"a": [[1.0, NAN]]}, None, "row 0 of 'a'"),
        ({"a": [[1.0], [np.inf]]}, None, "row 1 of 'a'"),
        ({"a": [[1.0]]}, {"b": np.array([True])}, "got 'b'"),
        ({"a": [[1.0]]}, {"a": np.array([1])}, "must be bool"),
        ({"a": [[NAN]]}, {"a": np.array([True])}, "row 0 of 'a'"),
    ],
)
def test_wrong_joins(features, present, text):
    with pytest.raises(ValueError, match=text):
        join_views(features, present=present)


def test_mixup_keeps_the_views_that_the_partner_lacks():
    rows = torch.tensor([[1.0, 2, NAN], [3, NAN, 5], [NAN, 6, 7]])
    batch = MixupRows(torch.arange(3), torch.tensor([1, 2, 0]), torch.full((3,), 0.75))
    mixed = torch.tensor([[1.5, 2, NAN], [3, NAN, 5.5], [NAN, 5, 7]])
    torch.testing.assert_close(batch.mix(rows, skip_nan=True), mixed, equal_nan=True)
