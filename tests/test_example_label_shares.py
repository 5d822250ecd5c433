"""The labels that make images alike, in the texts of the examples."""

import numpy as np
import pytest
import torch
from PIL import Image

from ads.labelled_images import LabelledImages
from ads.retrieved import retrieve
from common import plots
from common.label_shares import label_shares, similarity_text


def test_shares_of_label_sets_by_hand():
    found = [{"sea", "sunset"}, {"sea"}, {"sea", "trees"}, {"trees"}, set()]
    same, part, other, disjoint, none = label_shares({"sunset", "sea"}, found)
    assert same == [("sea", 0.5), ("sunset", 0.5)]
    assert part == [("sea", 0.75), ("sunset", -0.25)]
    # 1/3; each of the other two takes (1/2 + 1/3) / (3 * 2).
    assert [name for name, _ in other] == ["sea", "sunset", "trees"]
    assert [share for _, share in other] == pytest.approx([1 / 3 + 5 / 18, -5 / 36, -5 / 36])
    assert disjoint == none == []
    assert label_shares(set(), [set()]) == [[]]


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ([("sea", 0.75), ("sunset", -0.25)], "Jaccard 0.50: sea +0.75, sunset -0.25"),
        ([("sea", 0.5), ("sky", 0.5)], "Jaccard 1.00: sea +0.50, sky +0.50"),
        ([("sea", 0.61), ("sky", -0.14), ("sunset", -0.14)], "Jaccard 0.33: sea +0.61, 2 others -0.28"),
        ([], "no label in common"),
    ],
)
def test_text_of_a_similarity(shares, text):
    assert similarity_text(shares) == text
    assert similarity_text(iter(shares)) == text


def make_images(folder, labels):
    paths = [f"{row}.png" for row in range(len(labels))]
    for path in paths:
        Image.new("RGB", (8, 8)).save(folder / path)
    return LabelledImages(folder, paths, torch.tensor(labels), ["sea", "sunset"])


def test_retrieved_images_are_the_nearest_training_images_with_their_shares(tmp_path):
    images = make_images(tmp_path, [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    embeddings = torch.tensor([[0.0], [2.0], [1.0], [0.9], [5.0]])
    parts = {"train": torch.tensor([0, 1, 2]), "test": torch.tensor([3, 4])}
    first, second = retrieve(embeddings, images, parts)
    assert (first["image"], first["labels"]) == ("3.png", ["sea", "sunset"])
    assert first["found"] == [
        {"image": "2.png", "labels": ["sunset"], "shares": {"sunset": 0.75, "sea": -0.25}},
        {"image": "0.png", "labels": ["sea", "sunset"], "shares": {"sea": 0.5, "sunset": 0.5}},
        {"image": "1.png", "labels": ["sea"], "shares": {"sea": 0.75, "sunset": -0.25}},
    ]
    assert [found["image"] for found in second["found"]] == ["1.png", "2.png", "0.png"]
    assert [found["shares"] for found in second["found"]] == [{}, {}, {}]


def test_retrieval_figure_names_the_shares_also_of_long_labels_that_start_alike(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    long = [f"{'x' * 40}{number}" for number in range(2)]
    texts = []
    monkeypatch.setattr(plots, "_draw_image", lambda axes, path, text, colour: texts.append((text, colour)))
    monkeypatch.setattr(plots, "_save", lambda figure, path: None)
    image = tmp_path / "a.png"
    plots.plot_retrieval([image], [[image] * 3], [{*long}], [[{*long}, {long[0]}, {"sea"}]], tmp_path / "b.png")
    short = f"{'x' * 29}..."
    assert texts == [
        (f"query: {short}, {short}", "black"),
        (f"Jaccard 1.00: {short} +0.50, {short} +0.50", "green"),
        (f"Jaccard 0.50: {short} +0.75, {short} -0.25", "green"),
        ("no label in common", "red"),
    ]
