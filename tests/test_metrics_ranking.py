"""Average precision against scikit-learn and the formula in loops."""

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlmetric.metrics import average_precision, mean_average_precision


@st.composite
def score_matrices(draw):
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 4)))
    grid = draw(st.sampled_from([[0.3], [0.0, 1.0], [-2.0, -0.0, 0.0, 0.1, 7.0]]) | st.none())
    elements = st.floats(-1e6, 1e6) if grid is None else st.sampled_from(grid)
    return draw(hnp.arrays(np.float64, shape, elements=elements)), draw(hnp.arrays(np.bool_, shape))


def _loop(scores, positive):
    """Return AP of one label, written from the formula."""
    hits = [s for s, y in zip(scores, positive, strict=True) if y]
    if not hits:
        return np.nan
    return np.mean([sum(h >= s for h in hits) / sum(t >= s for t in scores) for s in hits])


def _sklearn(preds, target):
    columns = zip(preds.T, target.T, strict=True)
    return [sk.average_precision_score(y, s) if y.any() else np.nan for s, y in columns]


@settings(max_examples=50, deadline=None)
@given(matrices=score_matrices())
def test_average_precision_equals_scikit_learn_and_the_formula(matrices):
    preds, target = matrices
    actual = average_precision(preds, target)
    np.testing.assert_allclose(actual, _sklearn(preds, target), rtol=1e-12)
    np.testing.assert_allclose(actual, [_loop(*c) for c in zip(preds.T, target.T, strict=True)], rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(matrices=score_matrices())
def test_mean_average_precision_equals_scikit_learn(matrices):
    preds, target = matrices
    per_label = np.array(_sklearn(preds, target))
    macro = per_label[target.any(axis=0)].mean() if target.any() else np.nan
    np.testing.assert_allclose(mean_average_precision(preds, target), macro, rtol=1e-12)
    zero = mean_average_precision(preds, target, empty="zero")
    np.testing.assert_allclose(zero, np.nan_to_num(per_label).mean(), rtol=1e-12)
    micro = sk.average_precision_score(target.ravel(), preds.ravel()) if target.any() else np.nan
    np.testing.assert_allclose(mean_average_precision(preds, target, average="micro"), micro, rtol=1e-12)


def test_empty_zero_is_what_scikit_learn_itself_gives():
    preds, target = np.array([[0.2, 0.1], [0.8, 0.5], [0.5, 0.5]]), np.array([[0, 1], [0, 0], [0, 1]])
    with pytest.warns(UserWarning, match="No positive class"):
        expected = sk.average_precision_score(target, preds)
    assert mean_average_precision(preds, target, empty="zero").item() == pytest.approx(expected, abs=1e-12)


def test_large_random_matrix_equals_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    preds = torch.rand(3000, 5, generator=generator)
    target = torch.rand(3000, 5, generator=generator) < torch.tensor([0.001, 0.05, 0.3, 0.7, 1.1])
    assert preds.unique().numel() < preds.numel(), "float32 scores of this many rows tie"
    np.testing.assert_allclose(average_precision(preds, target), _sklearn(preds.numpy(), target.numpy()), rtol=1e-12)


def test_hand_worked_table():
    preds = torch.tensor([[4.0, 1.0, 2.0], [3.0, 1.0, 2.0], [2.0, 1.0, 1.0], [1.0, 1.0, 2.0]])
    target = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 0, 0]])
    expected = [(1 / 2 + 2 / 4) / 2, 1 / 4, (1 / 3 + 2 / 4) / 2]
    assert average_precision(preds, target).tolist() == pytest.approx(expected, abs=1e-15)


def test_tied_scores_count_for_each_other_whatever_the_order_of_rows():
    preds = torch.tensor([[1.0], [1.0], [1.0]])
    for row in range(3):
        target = torch.zeros(3, 1).index_fill(0, torch.tensor(row), 1)
        assert average_precision(preds, target).item() == pytest.approx(1 / 3)


def test_large_logits_do_not_become_ties():
    logits = torch.tensor([[20.0], [25.0], [30.0]])
    assert len(logits.sigmoid().unique()) < 3, "a sigmoid would have made ties of them"
    assert average_precision(logits, [[0], [0], [1]]).item() == 1
    assert average_precision(logits, [[1], [0], [0]]).item() == pytest.approx(1 / 3)


def test_python_floats_keep_their_double_precision():
    assert average_precision([[0.5], [0.5 + 1e-12]], [[0], [1]]).item() == 1


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.uint8]
)
def test_dtype_of_the_scores_does_not_matter_where_it_holds_them(dtype):
    preds = torch.tensor([[3, 0], [2, 2], [2, 1], [0, 2]])
    target = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 1]])
    result = average_precision(preds.to(dtype), target)
    assert result.dtype == torch.float64
    assert result.tolist() == average_precision(preds.double(), target).tolist()


def test_infinite_scores_rank_at_the_ends():
    preds = torch.tensor([[-torch.inf], [0.0], [torch.inf]])
    assert average_precision(preds, [[0], [0], [1]]).item() == 1
    assert average_precision(preds, [[1], [0], [0]]).item() == pytest.approx(1 / 3)


def test_negative_zero_ties_with_zero():
    assert average_precision([[0.0], [-0.0]], [[1], [0]]).item() == 1 / 2


def test_order_preserving_change_of_scale_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    preds = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    target = torch.rand(50, 3, generator=generator) < 0.3
    assert torch.equal(average_precision(preds, target), average_precision(preds.exp() * 7 - 3, target))


def test_label_without_positives_follows_the_policy():
    preds, target = torch.tensor([[0.2, 0.9], [0.8, 0.1]]), torch.tensor([[0, 1], [0, 0]])
    assert average_precision(preds, target).isnan().tolist() == [True, False]
    assert average_precision(preds, target, empty="zero").tolist() == [0, 1]
    assert average_precision(preds, target, empty="one").tolist() == [1, 1]
    assert mean_average_precision(preds, target).item() == 1
    assert mean_average_precision(preds, target, empty="zero").item() == 1 / 2
    with pytest.raises(
        ValueError, match=r"`average_precision` is undefined \(0/0\) at label 0, the first of 1 among 2"
    ):
        average_precision(preds, target, empty="error")
    with pytest.raises(ValueError, match=r"`mean_average_precision` is undefined \(0/0\) at label 0"):
        mean_average_precision(preds, target, empty="error")


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_nothing_to_average_follows_the_policy(average):
    for shape in ((0, 3), (3, 0), (2, 2)):
        preds, target = torch.zeros(shape), torch.zeros(shape)
        assert mean_average_precision(preds, target, average=average).isnan()
        assert mean_average_precision(preds, target, average=average, empty="zero") == 0
        assert mean_average_precision(preds, target, average=average, empty="one") == 1
        with pytest.raises(ValueError, match=r"`mean_average_precision` is undefined \(0/0\)"):
            mean_average_precision(preds, target, average=average, empty="error")


def test_result_has_one_entry_a_label_and_no_gradient():
    assert average_precision(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (3,)
    assert average_precision(torch.zeros(3, 0), torch.zeros(3, 0)).shape == (0,)
    result = mean_average_precision(torch.rand(4, 1, requires_grad=True), torch.ones(4, 1))
    assert result.shape == ()
    assert not result.requires_grad
    assert result.item() == pytest.approx(1)


@pytest.mark.parametrize("function", [average_precision, mean_average_precision])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preds": [[0.1, np.nan]]}, r"`preds` must hold no NaN, got one at row 0, label 1"),
        ({"preds": [[0.1]]}, r"the same shape \(N, L\), got \(1, 1\) and \(1, 2\)"),
        ({"target": [[0.25, 1]]}, r"`target` must be hard multi-hot, 0 or 1, got 0\.25 at row 0, label 0"),
        ({"empty": None}, r"`empty` must be one of .* got None"),
    ],
)
def test_bad_argument_is_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(**{"preds": [[0.1, 0.9]], "target": [[0, 1]]} | arguments)


def test_unknown_average_is_refused():
    with pytest.raises(ValueError, match=r"`average` must be one of 'macro', 'micro', got 'weighted'"):
        mean_average_precision([[0.1]], [[1]], average="weighted")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_result_lies_on_the_device_of_the_scores(dtype):
    generator = torch.Generator().manual_seed(2)
    preds = torch.rand(200, 4, generator=generator).to(dtype)
    target = torch.rand(200, 4, generator=generator) < 0.3
    result = average_precision(preds.cuda(), target)
    assert result.is_cuda
    torch.testing.assert_close(result.cpu(), average_precision(preds, target), rtol=0, atol=1e-12)
