"""The examples that are one file."""

import re

import torch

import custom_similarity


def test_custom_similarity_is_that_of_the_lineages():
    labels = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 3, 26]), 27)
    genus = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 1, 8]), 9)
    family = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 0, 2]), 3)
    rows = torch.cat([labels, genus, family], dim=1)
    assert custom_similarity.lineage(rows, rows)[0].tolist() == [1.0, 1.0, 0.5, 0.25, 0.0]


def test_custom_similarity_embedding_retrieves_better_than_the_features(capsys):
    custom_similarity.main()
    features, embedding = (float(number) for number in re.findall(r"(\d\.\d+)$", capsys.readouterr().out, re.MULTILINE))
    assert embedding > features + 0.2
