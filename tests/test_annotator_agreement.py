"""The measures of agreement between annotators in the benchmarks."""

import numpy as np
import pytest

from ads.reader import read_annotations
from annotator_agreement import (
    Answers,
    answer_alphas,
    compare,
    krippendorff_alpha,
    label_alphas,
    pooled_alpha,
    read_answers,
    votes_of_others,
)

NOMINAL = 1 - np.eye(2)
LABEL_LIST = '1. "Calm" (ABBREVIATION: "calm")\n2. "Sad" (ABBREVIATION: "sad")\n'


def test_alpha_of_two_observers_is_that_of_krippendorffs_binary_example():
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    alpha = krippendorff_alpha(np.array(first + second), np.tile(np.arange(10), 2), NOMINAL)
    assert alpha == pytest.approx(1 - 19 * 4 / (14 * 6))
    assert round(alpha, 3) == 0.095


def test_alpha_weights_units_by_their_size_and_leaves_out_single_values():
    values, units = np.array([1, 0, 1, 1, 0, 0]), np.array([0, 1, 2, 0, 1, 0])
    # Unit 0 has 4 ordered pairs that differ, divided by 3 - 1; five values are paired, two of them 1 and three 0.
    assert krippendorff_alpha(values, units, NOMINAL) == pytest.approx(1 - (5 - 1) * (4 / 2) / (2 * 2 * 3))


def test_alpha_of_equal_values_in_each_unit_is_one():
    assert krippendorff_alpha(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), NOMINAL) == 1


@pytest.fixture
def answers():
    """Answers {0} and {0, 1} to one image, {1} and {1} to another."""
    return Answers(np.array([[1, 0], [1, 1], [0, 1], [0, 1]], dtype=bool), np.array([0, 0, 1, 1]))


def test_alphas_of_whole_answers_are_those_computed_by_hand(answers):
    # Distances of {0} and {0, 1}, of {0} and {1}, of {0, 1} and {1}: 1/2, 1, 1/2 and for MASI 2/3, 1, 2/3.
    expected = {"Jaccard": 1 - 3 * 1 / 7, "MASI": 1 - 3 * (4 / 3) / 8}
    assert answer_alphas(answers) == pytest.approx(expected)


def test_alphas_of_labels_are_those_computed_by_hand(answers):
    # Label 0 is 1, 1, 0, 0: perfect. Label 1 is 0, 1, 1, 1: one pair of unit 0 differs.
    assert label_alphas(answers) == pytest.approx([1, 1 - 3 * 2 / (2 * 1 * 3)])
    assert pooled_alpha(answers) == pytest.approx(1 - 7 * 2 / (2 * 5 * 3))


def test_an_answer_is_compared_with_the_other_answers_of_its_image(answers):
    others = votes_of_others(answers)
    assert others.tolist() == [[1, 1], [1, 0], [0, 1], [0, 1]]
    # Four of five chosen labels are right, four of five wanted labels are chosen; F1 is 1 and 2 * 2 / (3 + 3).
    assert compare(answers.labels, others >= 1) == pytest.approx([0.8, 0.8, 0.8, (1 + 2 / 3) / 2])


def test_answers_without_a_label_of_the_list_are_left_out(tmp_path):
    (tmp_path / "labels.txt").write_text(LABEL_LIST)
    path = tmp_path / "answers.json"
    path.write_text('{"0/1.jpg": [["1", "1"], ["Other"], [" 2", "1"]], "0/2.jpg": [["2"], []]}')
    answers = read_answers(path, read_annotations(path, tmp_path / "labels.txt"))
    assert answers.labels.tolist() == [[True, False], [True, True], [False, True]]
    assert answers.image.tolist() == [0, 0, 1]


def test_two_entries_of_an_image_are_an_error(tmp_path):
    (tmp_path / "labels.txt").write_text(LABEL_LIST)
    path = tmp_path / "answers.json"
    path.write_text('{"0/1.jpg": [["1"]], "./0/1.jpg": [["2"]]}')
    with pytest.raises(ValueError, match=r"answers\.json must have one entry for each image"):
        read_answers(path, read_annotations(path, tmp_path / "labels.txt"))
