"""The check of backbone names before torchvision is imported, and Markdown tables."""

import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision

from common.backbone_names import check_backbone, torchvision_backbones
from common.tables import markdown_table


def test_the_names_read_from_the_source_are_those_of_torchvision():
    models = torchvision.models
    expected = {
        name: tuple(models.get_model_weights(name).__members__)
        for name in models.list_models(module=torchvision.models)
    }
    assert torchvision_backbones() == expected


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        (
            "resnet51",
            "none",
            r"--backbone must be the name of .*, such as resnet50, got resnet51\. Similar names: res",
        ),
        ("zzz", "none", r"--backbone must be the name of .*, got zzz\.$"),
        (
            "resnet50",
            "IMAGENET1K_V3",
            r"--weights must be IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, none, or .*, got IMA",
        ),
        (
            "resnet18",
            "random",
            r"--weights must be IMAGENET1K_V1, DEFAULT, none, or a .* for resnet18, got random",
        ),
        ("resnet18", "no.pth", r"--weights no\.pth is not a file"),
        ("any/model", "torn.pth", r"--weights torn\.pth is not a file that torch\.save wrote, or it is truncated"),
    ],
)
def test_a_wrong_name_is_an_error_that_names_what_there_is(name, weights, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.zeros(1000)}, "whole.pth")
    Path("torn.pth").write_bytes(Path("whole.pth").read_bytes()[:-100])
    with pytest.raises(ValueError, match=message):
        check_backbone(name, weights)


def test_names_weights_and_files_that_are_right_pass(tmp_path):
    for number, is_zip in enumerate((True, False)):
        path = tmp_path / f"{number}.pth"
        torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=is_zip)
        assert zipfile.is_zipfile(path) == is_zip
        check_backbone("resnet50", str(path))
    check_backbone("resnet50", "IMAGENET1K_V2")
    check_backbone("resnet18", "none")
    check_backbone("timm/any", "DEFAULT")


def test_names_are_left_to_the_backbone_where_the_source_is_missing_or_has_another_form(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    source = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    for spec, text in (
        (None, ""),
        (source, "register_model('resnet50', lambda: None)"),
        (source, "@register_model()\ndef resnet50(weights=None"),
        (source, "register_model = '\0'"),
    ):
        (tmp_path / "models/new.py").write_text(text)
        monkeypatch.setattr("common.backbone_names.find_spec", lambda name, spec=spec: spec)
        torchvision_backbones.cache_clear()
        assert torchvision_backbones() == {}
        check_backbone("resnet51", "none")
    torchvision_backbones.cache_clear()


def test_a_table_is_aligned_and_escapes_bars():
    table = markdown_table(["method", "a|b", "P"], [["one", "x", "0.5"], ["a longer one", "y", ""]], left=(0, 1))
    assert table.splitlines() == [
        "| method       | a\\|b |   P |",
        "| ------------ | ---- | --: |",
        "| one          | x    | 0.5 |",
        "| a longer one | y    |     |",
    ]
