"""`ProperAsymmetricLoss` is strictly proper with its link, and `AsymmetricLoss` is not."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import binary_cross_entropy_with_logits

from mlmetric.losses import AsymmetricLoss, ProperAsymmetricLoss
from mlmetric.metrics import calibration_error, log_loss

PARAMETERS = [(1, 1, 0, 0), (3, 1, 0, 0), (2, 0.5, 1, -1), (4, 2, -0.5, 1)]
each_loss = pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
TRUE_PROBABILITIES = [0.003, 0.02, 0.1, 0.35, 0.5, 0.8, 0.99]


def expected_loss(loss, logit, probability):
    """Return the expectation of the loss over labels that are present with the probability."""
    logits = torch.tensor([[logit]], dtype=torch.float64)
    present, absent = (float(loss(logits, torch.tensor([[label]]))) for label in (1, 0))
    return probability * present + (1 - probability) * absent


def best_logit(loss, probability):
    options = {"bounds": (-40, 40), "method": "bounded", "options": {"xatol": 1e-9}}
    return float(minimize_scalar(lambda logit: expected_loss(loss, logit, probability), **options).x)


@each_loss
@pytest.mark.parametrize("probability", TRUE_PROBABILITIES)
def test_expected_loss_is_lowest_where_the_link_gives_the_true_probability(parameters, probability):
    loss = ProperAsymmetricLoss(*parameters)
    best = best_logit(loss, probability)
    found = float(loss.probabilities(torch.tensor(best, dtype=torch.float64)))
    assert found == pytest.approx(probability, rel=1e-4)
    # Strictly: on a grid the expected loss decreases up to the best logit and increases after it.
    grid = np.linspace(-12, 12, 97)
    steps = np.diff([expected_loss(loss, logit, probability) for logit in grid])
    assert (steps[grid[1:] <= best] < 0).all()
    assert (steps[grid[:-1] >= best] > 0).all()


@each_loss
def test_link_increases_and_reaches_all_probabilities(parameters):
    values = ProperAsymmetricLoss(*parameters).probabilities(torch.linspace(-15, 15, 400, dtype=torch.float64))
    assert (values.diff() > 0).all()
    assert values[0] < 1e-3
    assert values[-1] > 1 - 1e-3


def test_asymmetric_loss_is_not_proper():
    """Its best logits have a sigmoid far from the true probabilities."""
    loss, probability = AsymmetricLoss(gamma_neg=4, gamma_pos=0, margin=0), 0.1
    logits = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    best = logits[int(np.argmin([expected_loss(loss, float(logit), probability) for logit in logits]))]
    assert best.sigmoid() > 2 * probability


def test_loss_equals_the_formula_written_as_loops():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    labels = torch.rand(5, 3, generator=generator, dtype=torch.float64)  # soft
    a_neg, a_pos, b_neg, b_pos = 2.5, 0.5, 0.75, -0.25
    total = 0.0
    for z, y in zip(logits.flatten().tolist(), labels.flatten().tolist(), strict=True):
        total += y * np.log1p(np.exp(-a_pos * (z - b_pos))) / a_pos
        total += (1 - y) * np.log1p(np.exp(a_neg * (z - b_neg))) / a_neg
    assert float(ProperAsymmetricLoss(a_neg, a_pos, b_neg, b_pos)(logits, labels)) == pytest.approx(total / 5)


def test_slopes_of_one_give_the_binary_cross_entropy_and_the_sigmoid():
    logits, labels = torch.randn(6, 4), torch.rand(6, 4)
    expected = binary_cross_entropy_with_logits(logits, labels, reduction="sum") / 6
    loss = ProperAsymmetricLoss(1, 1)
    torch.testing.assert_close(loss(logits, labels), expected)
    torch.testing.assert_close(loss.probabilities(logits), logits.sigmoid())


@each_loss
def test_gradients_equal_numerical_gradients(parameters):
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    loss, labels = ProperAsymmetricLoss(*parameters), torch.rand(4, 3)
    assert torch.autograd.gradcheck(lambda values: loss(values, labels), logits)
    assert torch.autograd.gradcheck(loss.probabilities, logits)


def test_extreme_logits_have_finite_losses_and_gradients():
    logits = torch.tensor([[-200.0, 200.0], [200.0, -200.0]], requires_grad=True)
    loss = ProperAsymmetricLoss()
    loss(logits, torch.tensor([[1, 0], [1, 0]])).backward()
    assert torch.isfinite(logits.grad).all()
    assert loss.probabilities(logits).tolist() == [[0, 1], [1, 0]]


def test_half_precision_logits_give_a_float32_loss():
    loss = ProperAsymmetricLoss()(torch.zeros(2, 2, dtype=torch.float16), torch.eye(2))
    assert loss.dtype == torch.float32
    assert ProperAsymmetricLoss()(torch.zeros(0, 2), torch.zeros(0, 2)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slope_neg": 0}, "must be above 0 and finite, got 0 and 1.0"),
        ({"slope_pos": float("nan")}, "must be above 0 and finite, got 3.0 and nan"),
        ({"shift_neg": float("inf")}, "`shift_neg` and `shift_pos` must be finite, got inf and 0.0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ProperAsymmetricLoss(**options)


def test_shapes_must_match():
    with pytest.raises(ValueError, match="must have the same shape"):
        ProperAsymmetricLoss()(torch.zeros(2, 3), torch.zeros(2, 2))


def logits_of_a_trained_model(loss, features, labels):
    """Train a linear model with the loss and return its logits."""
    model = torch.nn.Linear(features.shape[1], labels.shape[1]).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(model(features), labels)
        value.backward()
        return value

    optimizer.step(closure)
    return model(features).detach()


def test_link_gives_calibrated_probabilities_on_synthetic_data_and_the_asymmetric_loss_does_not():
    """Each row has one of 8 types, and each type its own true probability of each label."""
    generator = torch.Generator().manual_seed(0)
    types = torch.randint(0, 8, (8000,), generator=generator)
    truth = torch.rand(8, 3, generator=generator, dtype=torch.float64) ** 2
    labels = (torch.rand(8000, 3, generator=generator) < truth[types]).double()
    features = torch.eye(8, dtype=torch.float64)[types]
    proper = ProperAsymmetricLoss(3, 1, 0.5, 0)
    ours = proper.probabilities(logits_of_a_trained_model(proper, features, labels))
    theirs = logits_of_a_trained_model(AsymmetricLoss(2, 0, 0), features, labels).sigmoid()
    assert (ours - truth[types]).abs().max() < 0.05
    assert calibration_error(ours, labels) < 0.01
    assert calibration_error(theirs, labels) > 0.05
    assert log_loss(ours, labels) < log_loss(theirs, labels) - 0.02
