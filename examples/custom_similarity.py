"""Use the miner with a custom similarity: how close the lineages of two specimens are. The data are synthetic.

A similarity is any function `(labels, ref_labels) -> (N, M)` with larger values for more similar rows. Here the labels
of a row are its species, genus and family. The similarity is 1 for the same species, 0.5 for only the same genus, and
0.25 for only the same family.
"""

import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from torch import Tensor
from torch.nn.functional import one_hot

from mlmetric.heads import EmbeddingHead
from mlmetric.metrics import ndcg_at_k
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.training import TrainingConfig, apply_in_batches, fit_embedding

RANKS = (27, 9, 3)  # numbers of species, genera and families; each genus has three species, each family three genera


def lineage(labels: Tensor, ref_labels: Tensor) -> Tensor:
    """Return the weight of the lowest rank that two rows have in common, or 0."""
    ranks = zip(
        labels.float().split(RANKS, dim=1), ref_labels.float().split(RANKS, dim=1), (1.0, 0.5, 0.25), strict=True
    )
    return torch.stack([weight * rows @ refs.T for rows, refs, weight in ranks]).amax(dim=0)


def make_specimens(num_rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Generate features, 8 traits of the species and 24 columns of noise, and multi-hot labels."""
    species = torch.randint(27, (num_rows,), generator=generator)
    traits = torch.randn(27, 8, generator=torch.Generator().manual_seed(0))[species]
    noise = torch.randn(num_rows, 32, generator=generator)
    features = torch.cat([traits + 0.3 * noise[:, :8], 1.5 * noise[:, 8:]], dim=1)
    return features, torch.cat([one_hot(species, 27), one_hot(species // 3, 9), one_hot(species // 9, 3)], dim=1)


def main() -> None:
    """Train an embedding on triplets by lineage, and compare its retrieval with retrieval by the features."""
    generator = torch.Generator().manual_seed(1)
    features, labels = make_specimens(1000, generator)
    test_features, test_labels = make_specimens(300, generator)

    torch.manual_seed(0)
    head = EmbeddingHead(32, (64, 16), norm_exponent=0.0)
    miner = MultiLabelSemiHardMiner(
        similarity=lineage,
        type_of_triplets="all",
        positive_order="random",
        max_partial_per_positive=1,
        max_disjoint_per_positive=1,
        max_triplets_per_anchor=5,
        distance=LpDistance(),
    )
    loss = TripletMarginLoss(margin=0.2, distance=LpDistance())
    config = TrainingConfig(max_epochs=20, batch_size=128, lr=3e-3, seed=0)
    fit_embedding(head, features, labels, loss=loss, miner=miner, config=config)

    print("NDCG@10 with the similarity of lineages, on synthetic specimens (1 is best)")
    embedded, test_embedded = apply_in_batches(head, features), apply_in_batches(head, test_features)
    for name, queries, refs in (("features", test_features, features), ("embedding", test_embedded, embedded)):
        print(f"{name:>10} {ndcg_at_k(queries, test_labels, refs, labels, similarity=lineage):.3f}")


if __name__ == "__main__":
    main()
