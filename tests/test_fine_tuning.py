"""The example of fine-tuning: it trains the last stages and keeps the frozen ones."""

import itertools
import re

import numpy as np
import pytest
import torch

import fine_tuning
from mlmetric.heads import FrozenBackbone


def test_images_show_their_labels():
    images, labels = fine_tuning.make_images(40, np.random.default_rng(0))
    assert images.shape == (40, 3, 48, 48)
    assert labels.shape == (40, 6)
    assert ((labels[:, :3].sum(1) >= 1) & (labels[:, 3:].sum(1) >= 1)).all()
    pixels = images * 0.225 + 0.45
    pure = [(pixels[:, channel] > 0.99) & (pixels.sum(1) < 1.01) for channel in range(3)]  # the noise has no such pixel
    shown = torch.stack([channel.flatten(1).any(1) for channel in pure], dim=1)
    hidden = labels[:, :3].bool() & ~shown  # behind another shape
    assert not (shown & ~labels[:, :3].bool()).any()
    assert hidden.float().mean() < 0.02


@pytest.mark.slow
def test_example_trains_the_last_stages_and_prints_scores_before_and_after(monkeypatch, capsys):
    made, maps = [], itertools.count()

    def remember(*args, **options):
        made.append(FrozenBackbone(*args, **options))
        made.append({name: value.clone() for name, value in made[0].model.state_dict().items()})
        return made[0]

    def higher_each_time(probabilities, labels):  # so that the last epoch is kept
        assert probabilities.shape == labels.shape
        return torch.tensor(next(maps) / 10)

    monkeypatch.setattr(fine_tuning, "FrozenBackbone", remember)
    monkeypatch.setattr(fine_tuning, "mean_average_precision", higher_each_time)
    monkeypatch.setattr(fine_tuning, "EPOCHS", 2)
    fine_tuning.main(num_images=240)
    lines = capsys.readouterr().out.splitlines()  # calls 1 to 3 are those on the validation images
    assert re.sub(r"(NDCG@10) 0\.[3-9]\d+", r"\1 high", lines[0]) == "frozen:     mAP 0.000, NDCG@10 high"
    assert re.sub(r"(NDCG@10) 0\.[3-9]\d+", r"\1 high", lines[1]) == "fine-tuned: mAP 0.400, NDCG@10 high"
    backbone, before = made
    changed = {name for name, value in backbone.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith(("layer3.", "layer4."))}
