"""Fine-tuning a network.

Train the heads on features of a frozen network, then the last stages of the network too, and compare the scores. The
network is small, and pretrained within the script. Both tasks use handwritten digits from scikit-learn.
"""

# %%
# The second task: each image shows three handwritten digits, and its labels are the digits that occur.

import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import nn

from mlmetric.heads import ClassifierHead, EmbeddingHead, FrozenBackbone
from mlmetric.losses import LogRatioLoss
from mlmetric.metrics import mean_average_precision, ndcg_at_k
from mlmetric.training import TrainingConfig, apply_in_batches, fit_embedding

digits, rng = load_digits(), np.random.default_rng(0)
pixels, classes = torch.from_numpy(digits.images).float()[:, None] / 16, torch.from_numpy(digits.target)


def compose(rows: np.ndarray, num_images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compose images of three digits, and their labels."""
    chosen = torch.from_numpy(rng.choice(rows, (num_images, 3)))
    labels = torch.zeros(num_images, 10, dtype=torch.int64)
    labels[torch.arange(num_images)[:, None], classes[chosen]] = 1
    return torch.cat([pixels[chosen[:, place]] for place in range(3)], dim=-1), labels


train_digits, test_digits = np.split(rng.permutation(len(classes)), [1000])
images, labels = compose(train_digits, 600)
test_images, test_labels = compose(test_digits, 600)

# %%
# The first task: single digits from 0 to 4. The network does not see the others before it is fine-tuned.


def stage(inputs: int, outputs: int) -> nn.Sequential:
    """Make a layer with batch normalization."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


torch.manual_seed(0)
network = nn.Sequential(stage(1, 16), nn.MaxPool2d(2), stage(16, 32), stage(32, 64))
single = nn.Sequential(network, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 5))
optimizer = torch.optim.AdamW(single.parameters(), lr=3e-3)
rows_of_task = torch.from_numpy(train_digits)[classes[train_digits] < 5]
for _ in range(8):
    for rows in rows_of_task[torch.randperm(len(rows_of_task))].split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(single(pixels[rows]), classes[rows]).backward()
        optimizer.step()

# %%
# The heads on features of the frozen network, which are computed once.

backbone = FrozenBackbone(network, pooling="max", unfrozen=("2", "3"))
head, classifier, metric_loss = EmbeddingHead(64, (64,)), ClassifierHead(64, 10), LogRatioLoss()
model = nn.Sequential(backbone, head, classifier)


def scores() -> tuple[float, float]:
    """Compute mAP and NDCG@10 of the test images."""
    model.eval()
    embeddings = apply_in_batches(model[:2], test_images, batch_size=200)
    return mean_average_precision(classifier(embeddings), test_labels).item(), float(ndcg_at_k(embeddings, test_labels))


features = apply_in_batches(backbone, images, batch_size=200)
head.standardize.fit(features)
options = {"classifier": classifier, "classifier_weight": 3.0, "config": TrainingConfig(max_epochs=40, seed=0)}
fit_embedding(head, features, labels, loss=metric_loss, **options)
curve = [scores()]

# %%
# Then the last two stages and the heads, with a lower learning rate for the network.

groups = [{"params": backbone.parameters(), "lr": 5e-4}, {"params": model[1:].parameters(), "lr": 1e-3}]
optimizer = torch.optim.AdamW(groups)
for _ in range(10):
    model.train()
    for rows in torch.randperm(len(images)).split(32):
        embeddings = model[:2](images[rows])
        loss = metric_loss(embeddings, labels[rows]) + 3 * classifier.loss(classifier(embeddings), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    curve.append(scores())
print("frozen:     mAP {:.3f}, NDCG@10 {:.3f}".format(*curve[0]))
print("fine-tuned: mAP {:.3f}, NDCG@10 {:.3f}".format(*curve[-1]))

# %%
# The dashed lines are the scores of the frozen network.

figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
for name, values, colour in zip(("mAP", "NDCG@10"), zip(*curve, strict=True), ("#0072B2", "#D55E00"), strict=True):
    axes.plot(values, marker="o", color=colour)
    axes.plot([0, 10], [values[0], values[0]], color=colour, linestyle="--", linewidth=1)
    at = {"textcoords": "offset points", "color": colour}
    axes.annotate(f"{name} {values[-1]:.2f}", (10, values[-1]), xytext=(8, 0), va="center", **at)
    axes.annotate(f"frozen network {values[0]:.2f}", (2, values[0]), xytext=(0, 5), **at)
axes.set(
    xlabel="epochs of fine-tuning",
    ylabel="score on test images",
    xlim=(-0.3, 12.5),
    ylim=(0.55, 1),
    xticks=range(0, 11, 2),
)
axes.set_title("Fine-tuning the last two stages of a small network")

# %%
# The gain is large because the network was pretrained on five digits only, on 500 images. With weights of ImageNet the
# gain on photographs was 0.01 to 0.02 mAP. To choose the number of epochs, use validation images and keep the best
# epoch; this example shows all epochs on the test images.
#
# See also: [Fine-tuning a backbone](../guide/fine_tuning.md), with measurements on photographs, and
# [the API](../api/heads.md#mlmetric.heads.FrozenBackbone).
