"""Fine-tune the last stages of a network with a metric loss and a classifier, on synthetic images of shapes."""

import argparse
import copy

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from mlmetric.data import stratified_split
from mlmetric.heads import ClassifierHead, EmbeddingHead, FrozenBackbone
from mlmetric.losses import LogRatioLoss
from mlmetric.metrics import mean_average_precision, ndcg_at_k
from mlmetric.training import TrainingConfig, apply_in_batches, fit_embedding

HEAD_LR, BACKBONE_LR = 1e-3, 5e-4  # at most 1e-4 for pretrained weights
EPOCHS, BATCH_SIZE, BATCHES_PER_STEP, CLASSIFIER_WEIGHT = 8, 16, 2, 3.0


def make_images(num_images: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw one to three shapes in each image; labels are three colours, then triangle, square and circle."""
    images, labels = [], torch.zeros(num_images, 6, dtype=torch.int64)
    for row in labels:
        image = Image.fromarray(rng.integers(60, 140, (48, 48, 3), dtype=np.uint8))
        for color, shape, *at in rng.integers([0, 0, 9, 9, 7], [3, 3, 39, 39, 11], (rng.integers(1, 4), 5)).tolist():
            ImageDraw.Draw(image).regular_polygon(tuple(at), (3, 4, 30)[shape], fill=("red", "lime", "blue")[color])
            row[[color, 3 + shape]] = 1
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return (torch.stack(images) / 255 - 0.45) / 0.225, labels  # close to ImageNet's mean and standard deviation


def main(weights: str | None = None, num_images: int = 800) -> None:
    """Train the heads on frozen features, then also the last stages; score both on held-out test images."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels = (part.to(device) for part in make_images(num_images, np.random.default_rng(0)))
    train, validation, test = stratified_split(labels, (0.5, 0.25, 0.25))
    backbone = FrozenBackbone("resnet18", weights=weights, unfrozen=("layer3", "layer4"))
    head, classifier, metric_loss = EmbeddingHead(512, (64,)), ClassifierHead(64, 6), LogRatioLoss()
    model = nn.Sequential(backbone, head, classifier).to(device)

    def scores(rows: Tensor) -> tuple[float, float]:
        embeddings = apply_in_batches(model[:2], images[rows], batch_size=64)
        mean_ap = mean_average_precision(apply_in_batches(classifier, embeddings), labels[rows])
        return mean_ap.item(), float(ndcg_at_k(embeddings, labels[rows]))

    # 1. The heads, on features of the frozen network: the gradients of random heads would spoil pretrained weights.
    features = apply_in_batches(backbone, images, batch_size=64)
    head.standardize.fit(features[train])
    options = {"classifier": classifier, "classifier_weight": CLASSIFIER_WEIGHT, "config": TrainingConfig(lr=HEAD_LR)}
    fit_embedding(head, features[train], labels[train], loss=metric_loss, **options)
    print("frozen:     mAP {:.3f}, NDCG@10 {:.3f}".format(*scores(test)))

    # 2. Everything, with a low learning rate for the network; the best epoch on the validation images is kept.
    groups = [{"params": backbone.parameters(), "lr": BACKBONE_LR}, {"params": model[1:].parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=HEAD_LR)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    best_map, best_weights = scores(validation)[0], copy.deepcopy(model.state_dict())
    for _ in range(EPOCHS):
        model.train()
        for number, rows in enumerate(train[torch.randperm(len(train))].split(BATCH_SIZE), start=1):
            with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
                embeddings = model[:2](images[rows])
                loss = metric_loss(embeddings, labels[rows])
                loss += CLASSIFIER_WEIGHT * classifier.loss(classifier(embeddings), labels[rows])
            scaler.scale(loss / BATCHES_PER_STEP).backward()
            if number % BATCHES_PER_STEP == 0:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        if (score := scores(validation)[0]) > best_map:
            best_map, best_weights = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_weights)
    print("fine-tuned: mAP {:.3f}, NDCG@10 {:.3f}".format(*scores(test)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "weights", nargs="?", help='"DEFAULT" for the weights of ImageNet (default: random, no download)'
    )
    main(parser.parse_args().weights)
