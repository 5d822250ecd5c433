"""Saved models: the same model when loaded, no code in the files, and one sentence for each kind of damage."""

import copy
import json
import os
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from helpers import Killed
from mlmetric._atomic_write import atomic_write
from mlmetric.estimators import MetricClassifier
from mlmetric.heads import (
    ClassifierEnsemble,
    ClassifierHead,
    EmbeddingEnsemble,
    EmbeddingHead,
    LabelGraphHead,
    LabelNetwork,
    SemanticProjectionHead,
)
from mlmetric.heads._label_graph_head import GraphConvolution
from mlmetric.heads._standardize import Standardize
from mlmetric.models import MultiLabelModel, _pretrained_folder

NAMES = ["sea", 'sky | "blue"', "été\n"]
ROWS = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32))


def small_model(**options):
    head = EmbeddingHead(6, (8, 4), norm_exponent=0.5, clip=2.0, dropout=0.1, batch_norm=True)
    classifier = ClassifierEnsemble([LabelNetwork(head, ClassifierHead(4, 3)), ClassifierHead(6, 3, clip=3.0)], [1, 2])
    embedding = EmbeddingEnsemble([head, EmbeddingHead(6, (2,))])
    options = {"label_names": NAMES, "thresholds": [0.1, 0.4, torch.inf]} | options
    model = MultiLabelModel(embedding, classifier, **options)
    randomize(model)
    return model.eval()


def randomize(module):
    """Give all tensors other values than a constructor does."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and name != "thresholds":
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)


@pytest.fixture
def folder(tmp_path):
    small_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def loading(folder, error, message, **options):
    with pytest.raises(error, match=message) as caught:
        MultiLabelModel.from_pretrained(folder, **options)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the same model


def test_loaded_model_equals_the_saved_one(tmp_path):
    model = small_model(record={"metrics": {"mAP": 0.25}}, feature_names=list("abcdef"))
    model.save_pretrained(tmp_path / "a" / "model")
    loaded = MultiLabelModel.from_pretrained(str(tmp_path / "a" / "model"))
    np.testing.assert_array_equal(loaded.predict_proba(ROWS), model.predict_proba(ROWS))
    np.testing.assert_array_equal(loaded.embed(ROWS), model.embed(ROWS))
    assert loaded.predict(ROWS) == model.predict(ROWS)
    np.testing.assert_array_equal(loaded.thresholds, model.thresholds)
    for name in ("label_names", "feature_names", "in_features", "embedding_size", "record"):
        assert getattr(loaded, name) == getattr(model, name)
    assert repr(loaded) == repr(model)
    assert not any(part.training for part in loaded.modules())


def test_module_that_occurs_twice_is_saved_once_and_loaded_as_one(folder):
    loaded = MultiLabelModel.from_pretrained(folder)
    assert loaded.classifier.members[0].head is loaded.embedding.members[0]
    assert not [
        name for name in load_file(folder / "model.safetensors") if name.startswith("classifier.members.0.head")
    ]


@pytest.mark.parametrize("two_stage", [False, True])
def test_model_of_a_classifier_is_loaded_as_it_was(tmp_path, two_stage):
    y = (ROWS[:, :3] > 0).long().numpy()
    head = partial(EmbeddingHead, widths=(8, 4))
    classifier = MetricClassifier(head=head, n_members=2, max_epochs=1, two_stage=two_stage, random_state=0)
    classifier.fit(ROWS.numpy(), y).to_model().save_pretrained(tmp_path)
    loaded = MultiLabelModel.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.predict_proba(ROWS), classifier.predict_proba(ROWS))
    np.testing.assert_array_equal(loaded.embed(ROWS), classifier.transform(ROWS))
    assert (getattr(loaded.classifier, "head", None) is loaded.embedding) == two_stage


ACTIVATIONS = [nn.ELU, partial(nn.LeakyReLU, 0.3), partial(nn.GELU, "tanh"), partial(nn.PReLU, 8), nn.SiLU, nn.Tanh]


@pytest.mark.parametrize(
    ("embedding", "classifier"),
    [
        *((EmbeddingHead(6, (8, 4), activation=activation), ClassifierHead(6, 3)) for activation in ACTIVATIONS),
        (EmbeddingHead(6, (4,), activate_last=True, input_dropout=0.2), ClassifierHead(6, 3, activation="softmax")),
        (nn.Linear(6, 2, bias=False), LabelGraphHead.from_labels(6, torch.eye(3), hidden_features=5)),
        (
            nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 2), nn.BatchNorm1d(2, affine=False), nn.Softplus(beta=2)),
            SemanticProjectionHead(6, torch.eye(3), distance="euclidean", num_neighbors=1, separation=0.2),
        ),
        (Standardize(6), SemanticProjectionHead(6, torch.eye(3))),
    ],
    ids=lambda part: type(part).__name__,
)
def test_every_head_is_rebuilt_with_its_settings(tmp_path, embedding, classifier):
    model = MultiLabelModel(embedding, classifier, in_features=6)
    randomize(model)
    model.save_pretrained(tmp_path)
    loaded = MultiLabelModel.from_pretrained(tmp_path)
    assert repr(loaded) == repr(model)
    np.testing.assert_array_equal(loaded.predict_proba(ROWS), model.predict_proba(ROWS))
    np.testing.assert_array_equal(loaded.embed(ROWS), model.embed(ROWS))


def test_graph_convolution_is_rebuilt_as_a_part(tmp_path):
    layer = nn.Sequential(nn.Flatten(), nn.Sequential(GraphConvolution(torch.eye(1), 6, 2)))
    model = MultiLabelModel(layer, ClassifierHead(6, 3), in_features=6)
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(MultiLabelModel.from_pretrained(tmp_path).embed(ROWS[:1]), model.embed(ROWS[:1]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept(tmp_path, dtype):
    model = small_model().to(dtype)
    model.save_pretrained(tmp_path)
    loaded = MultiLabelModel.from_pretrained(tmp_path)
    assert next(loaded.parameters()).dtype == dtype
    np.testing.assert_array_equal(loaded.predict_proba(ROWS), model.predict_proba(ROWS))


def test_tensors_that_share_memory_are_saved_under_each_name(tmp_path):
    first, second = nn.Linear(6, 4, bias=False), nn.Linear(6, 4, bias=False)
    second.weight = first.weight
    model = MultiLabelModel(EmbeddingEnsemble([first, second]), ClassifierHead(6, 3))
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(MultiLabelModel.from_pretrained(tmp_path).embed(ROWS), model.embed(ROWS))


def test_loading_draws_no_random_numbers_of_the_caller(folder):
    state = torch.random.get_rng_state()
    MultiLabelModel.from_pretrained(folder)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.slow
def test_model_is_loaded_in_a_new_process(folder):
    program = (
        "import sys, json, numpy as np, mlmetric.models as m; rows = np.load(sys.argv[2]);"
        "print(json.dumps(m.MultiLabelModel.from_pretrained(sys.argv[1]).predict_proba(rows).tolist()))"
    )
    np.save(folder / "rows.npy", ROWS.numpy())
    command = [sys.executable, "-c", program, str(folder), str(folder / "rows.npy")]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    np.testing.assert_allclose(found, small_model().predict_proba(ROWS), atol=1e-6)


# --- the files


def test_folder_has_three_files_and_json_without_infinity(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]

    def refuse(constant):
        raise AssertionError(constant)

    config = json.loads((folder / "config.json").read_text(), parse_constant=refuse)
    assert config["thresholds"] == [0.1, 0.4, "inf"]
    assert config["label_names"] == NAMES
    assert config["embedding"]["modules"]["members"]["modules"]["0"]["arguments"]["clip"] == 2.0


def test_card_describes_the_model_and_its_example_runs(folder, tmp_path, monkeypatch, capsys):
    record = {
        "name": "Beaches",
        "license": "cc-by-4.0",
        "data": "120 of 150 photos",
        "metrics": {"mAP": 0.98765, "labels": {"sea": 1.0}},
        "limits": "Only by day.",
        "loss": None,
        "epochs": 7,
    }
    small_model(record=record).save_pretrained(folder)
    card = (folder / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: mlmetric\nlicense: "cc-by-4.0"\ntags:\n- multi-label-classification\n')
    for line in ("# Beaches", '| sky \\| "blue" | 0.4 |', "| été | inf |", "| mAP | 0.9877 |", "| labels: sea | 1 |"):
        assert line in card.splitlines()
    for text in ("Data: 120 of 150 photos", "| epochs | 7 |", "- Only by day.", "Licence of the model: cc-by-4.0"):
        assert text in card
    assert "| loss |" not in card
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], {})
    assert capsys.readouterr().out.splitlines()[1:] == ["(1, 3)", "(1, 6)"]


def test_card_shows_a_report_in_place_of_the_metrics(tmp_path):
    report = "| metric | value |\n| --- | --- |\n| F1 | 0.4 |\n"
    small_model(record={"metrics": {"mAP": 0.5}, "report": report}).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "## Evaluation\n\n| metric | value |\n| --- | --- |\n| F1 | 0.4 |\n\n## Limits" in card


def test_card_without_a_record_says_so(folder):
    card = (folder / "README.md").read_text()
    assert "# Multi-label model" in card
    assert "The record of the model contains no measurements." in card
    assert "Licence of the model: not stated." in card


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("stopped_at", ["model.safetensors", "README.md", "config.json"])
@pytest.mark.parametrize("step", ["written", "renamed"])
def test_interrupted_save_leaves_the_old_model_or_nothing_that_loads(tmp_path, monkeypatch, stopped_at, existing, step):
    if existing:
        small_model().save_pretrained(tmp_path)
    rename = Path.replace

    def stop_writing(path):
        if path.name == stopped_at:
            raise Killed
        return atomic_write(path)

    def stop_renaming(source, target):
        if target.name == stopped_at:
            raise Killed
        return rename(source, target)

    if step == "written":
        monkeypatch.setattr(_pretrained_folder, "atomic_write", stop_writing)
    else:
        monkeypatch.setattr(Path, "replace", stop_renaming)
    changed = small_model()
    with torch.no_grad():
        next(changed.parameters()).zero_()
    with pytest.raises(Killed):
        changed.save_pretrained(tmp_path)
    if existing and (step == "written" or stopped_at == "model.safetensors"):
        assert MultiLabelModel.from_pretrained(tmp_path).predict(ROWS) == small_model().predict(ROWS)
    elif existing:
        loading(tmp_path, ValueError, "is not the file that config.json was saved with")
    else:
        loading(tmp_path, FileNotFoundError, "contains no saved model: config.json is missing")
    assert len(list(tmp_path.iterdir())) <= 3  # no temporary file


# --- damaged files


def test_folder_without_its_files_is_named(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    loading(folder, FileNotFoundError, "contains no complete model: model.safetensors is missing")
    (folder / "config.json").unlink()
    loading(folder, FileNotFoundError, "contains no saved model: config.json is missing")
    loading(tmp_path / "absent", FileNotFoundError, "does not exist, and it is not an id on the Hugging Face hub")
    (tmp_path / "file").touch()
    loading(tmp_path / "file", FileNotFoundError, "is a file, not the folder of a model")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json is damaged: it is not valid JSON"),
        ("[" * 100_000, r"config\.json is damaged: it is not valid JSON"),
        ("[]", r"config\.json is not the configuration of a model of mlmetric: `format`"),
        ('{"model_type": "bert"}', "is not the configuration of a model of mlmetric, but of 'bert'"),
        ('{"format": "mlmetric.MultiLabelModel"}', "`format_version` must be a number from 1, got None"),
        (
            '{"format": "mlmetric.MultiLabelModel", "format_version": 3, "versions": {"mlmetric": "9.0"}}',
            r"has the format version 3, but this mlmetric reads up to 2: install a newer .* saved by mlmetric 9\.0",
        ),
        (
            '{"format": "mlmetric.MultiLabelModel", "format_version": 3}',
            "was saved by an unknown version",
        ),
    ],
)
def test_config_that_is_damaged_foreign_or_newer_is_named(folder, text, message):
    (folder / "config.json").write_text(text)
    loading(folder, ValueError, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": None}, "is damaged: `thresholds` is a NoneType"),
        ({"label_names": ["a", "b"]}, "must name the 3 labels of the classifier, got 2 names"),
        ({"label_names": ["a", "a", "b"]}, "must be different, but 'a' occurs 2 times"),
        ({"label_names": ["a", 1, "b"]}, "a name of a label or feature is not a text"),
        ({"thresholds": [0.5]}, r"`thresholds` must be a number or have shape \(3,\), .* got \(1,\)"),
        ({"thresholds": [0.5, 0.5, float("nan")]}, 'must be numbers, "inf" or "-inf", got nan'),
        ({"thresholds": [0.5, 0.5, "nan"]}, "got 'nan'"),
        ({"in_features": 7}, r"agree in their number of features, got 7 \(`in_features`\), 6 \(`embedding`\)"),
        ({"embedding": {"class": 3}}, "`embedding` is not described by a class name"),
        ({"embedding": {"same_as": "classifier"}}, "`embedding` is not described by a class name"),
        (
            {"embedding": {"class": "Linear", "arguments": []}},
            "has arguments or modules that are not described by name",
        ),
        ({"embedding": {"class": "Linear", "arguments": {"in_features": 6}}}, "`embedding`, Linear, cannot be made"),
        ({"backbone": {"kind": "value"}}, "`backbone` is not described by kind, name and weights"),
        ({"backbone": {"kind": "value", "name": "x", "weights": "y"}}, "`unfrozen` of `backbone` must be a list"),
        (
            {"backbone": {"kind": "reference", "name": "alexnet", "weights": "/etc/x.pth", "unfrozen": []}},
            "is not one that this mlmetric knows: 'alexnet' with the weights '/etc/x.pth'",
        ),
        (
            {"backbone": {"kind": "value", "name": "timm/local-dir:/x", "weights": "random", "unfrozen": []}},
            "is not one that this mlmetric knows",
        ),
    ],
)
def test_config_with_wrong_content_is_named(folder, changes, message):
    edit(folder, **changes)
    loading(folder, ValueError, message)


def replaced(value, wrong):
    """List copies of a JSON value in each of which one part is replaced."""
    yield wrong
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(parts):
        for changed in replaced(part, wrong):
            copied = copy.copy(value)
            copied[key] = changed
            yield copied


@pytest.mark.parametrize("wrong", [None, -1, "x", [], {}, True, [1, 2], 1e9], ids=repr)
def test_config_with_any_part_replaced_is_refused_or_loaded(tmp_path, wrong):
    MultiLabelModel(EmbeddingHead(6, (2,)), ClassifierHead(6, 3)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    errors = []
    for config in replaced(json.loads(path.read_text()), wrong):
        path.write_text(json.dumps(config))
        errors.append(None)
        try:
            MultiLabelModel.from_pretrained(tmp_path)
        except ValueError as error:  # any other error fails the test
            errors[-1] = str(error)
    refused = [error for error in errors if error is not None]
    assert len(errors) > 40
    assert len(refused) > len(errors) / 2
    assert all(str(path) in error or "model.safetensors" in error for error in refused)


def test_tensors_truncated_at_any_place_are_refused(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for size in np.linspace(0, len(data) - 1, 50).astype(int):
        path.write_bytes(data[:size])
        loading(folder, ValueError, r"model\.safetensors is truncated or not a safetensors file")
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    loading(folder, ValueError, r"model\.safetensors is not the file that config\.json was saved with")


def test_other_tensors_are_named(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = "classifier.members.1.linear.bias"
    for changed in (torch.zeros(4), torch.zeros(3, dtype=torch.int64)):
        save_file(tensors | {name: changed}, path)
        loading(folder, ValueError, f"missing tensors: 0, unexpected: 0, of another shape or type: 1; .* is '{name}'")
    save_file({key: value for key, value in tensors.items() if key != name} | {"other": torch.zeros(1)}, path)
    loading(folder, ValueError, f"missing tensors: 1, unexpected: 1, of another shape or type: 0; .* is '{name}'")


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("writer", [pickle.dump, torch.save])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_pickle_in_place_of_a_file_is_not_executed(folder, tmp_path, writer, name):
    created = tmp_path / "created"
    with (folder / name).open("wb") as file:
        writer(Malicious(str(created)), file)
    loading(folder, ValueError, name)
    assert not created.exists()
    pickle.loads(pickle.dumps(Malicious(str(created))))
    assert created.exists()


# --- modules of the user


class Scale(nn.Module):
    def __init__(self, size=6):
        super().__init__()
        self.in_features = size
        self.factor = nn.Parameter(torch.ones(size))

    def forward(self, features):
        return features * self.factor


SCALE = f"{Scale.__module__}.Scale"


@pytest.mark.parametrize("given", [Scale, partial(Scale, 6), Scale(6)], ids=["class", "function", "module"])
def test_modules_of_the_user_are_passed_by_their_class_names(tmp_path, given):
    model = MultiLabelModel(nn.Sequential(Scale(), nn.ReLU(), Scale()), ClassifierHead(6, 3))
    randomize(model)
    model.save_pretrained(tmp_path)
    loaded = MultiLabelModel.from_pretrained(tmp_path, custom_modules={SCALE: given})
    np.testing.assert_array_equal(loaded.embed(ROWS), model.embed(ROWS))
    if isinstance(given, nn.Module):
        assert torch.equal(given.factor, torch.ones(6))
    assert f"custom_modules={{'{SCALE}': Scale}}" in (tmp_path / "README.md").read_text()


def test_modules_of_the_user_that_are_not_passed_are_named(tmp_path):
    MultiLabelModel(Scale(), ClassifierHead(6, 3)).save_pretrained(tmp_path)
    message = f"`embedding` is of the class {SCALE}, .* pass `custom_modules={{'{SCALE}': Scale}}` with a function"
    loading(tmp_path, ValueError, message)
    with pytest.raises(TypeError, match="must be a torch module or make one, got dict"):
        MultiLabelModel.from_pretrained(tmp_path, custom_modules={SCALE: dict})


class WithState(Scale):
    def get_extra_state(self):
        return {"any": "object"}


def test_state_that_is_not_made_of_tensors_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="`embedding`, WithState, has a state that is not made of tensors"):
        MultiLabelModel(WithState(), ClassifierHead(6, 3)).save_pretrained(tmp_path)


def test_unknown_way_to_save_a_backbone_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="`backbone` must be 'reference' or 'value', got 'both'"):
        small_model().save_pretrained(tmp_path, backbone="both")


# --- packages and the hub


def test_missing_packages_are_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'no folder user/model; .* requires .*: `pip install "mlmetric\[hub\]"`'):
        MultiLabelModel.from_pretrained("user/model")
    with pytest.raises(ImportError, match=r'`push_to_hub` requires huggingface_hub: `pip install "mlmetric\[hub\]"`'):
        small_model().push_to_hub("user/model")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r'require safetensors: `pip install "mlmetric\[hub\]"`'):
        MultiLabelModel.from_pretrained(folder)


class StubApi:
    """The hub's API: records what it is asked, and keeps the uploaded files."""

    calls, files = [], {}

    def __init__(self, token=None):
        self.calls.append(("token", token))

    def create_repo(self, repo_id, **options):
        self.calls.append(("create_repo", repo_id, options))

    def create_branch(self, repo_id, **options):
        self.calls.append(("create_branch", repo_id, options))

    def upload_folder(self, *, folder_path, **options):
        self.calls.append(("upload_folder", options))
        self.files.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})
        return SimpleNamespace(commit_url="https://hub/commit")


@pytest.fixture
def api(monkeypatch):
    StubApi.calls, StubApi.files = [], {}
    monkeypatch.setattr(huggingface_hub, "HfApi", StubApi)
    return StubApi


def test_push_uploads_the_three_files(api):
    assert small_model().push_to_hub("user/model", private=True, token="t", revision="v1") == "https://hub/commit"
    assert api.calls == [
        ("token", "t"),
        ("create_repo", "user/model", {"private": True, "exist_ok": True}),
        ("create_branch", "user/model", {"branch": "v1", "exist_ok": True}),
        (
            "upload_folder",
            {"repo_id": "user/model", "commit_message": "Upload a multi-label model", "revision": "v1"},
        ),
    ]
    assert sorted(api.files) == ["README.md", "config.json", "model.safetensors"]
    assert b'from_pretrained("user/model")' in api.files["README.md"]


def test_push_to_the_main_branch_creates_none(api):
    small_model().push_to_hub("user/model", commit_message="First")
    assert [call[0] for call in api.calls] == ["token", "create_repo", "upload_folder"]


def test_failed_upload_is_named(api, monkeypatch):
    def fail(self, repo_id, **options):
        raise RuntimeError("401 Unauthorized.\nMore.")

    monkeypatch.setattr(api, "create_repo", fail)
    with pytest.raises(OSError, match=r"user/model could not be uploaded .* \(RuntimeError: 401 Unauthorized\)\.$"):
        small_model().push_to_hub("user/model")


def test_id_of_the_hub_is_downloaded_unless_there_is_such_a_folder(folder, tmp_path, monkeypatch):
    calls = []

    def download(repo_id, **options):
        calls.append((repo_id, options))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    options = {"revision": "v1", "cache_dir": tmp_path / "cache", "local_files_only": True, "token": "t"}
    loaded = MultiLabelModel.from_pretrained("user/model", **options)
    assert loaded.predict(ROWS) == small_model().predict(ROWS)
    files = ["config.json", "model.safetensors", "README.md", "text_terms.json"]
    assert calls == [("user/model", options | {"allow_patterns": files})]
    small_model(label_names=list("abc")).save_pretrained("user/model")
    assert MultiLabelModel.from_pretrained("user/model").label_names == list("abc")
    assert len(calls) == 1


def test_failed_download_is_one_sentence(monkeypatch):
    def fail(repo_id, **options):
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(
        OSError, match=r"^There is no folder user/model, and it could not be downloaded .* no route\)\.$"
    ):
        MultiLabelModel.from_pretrained("user/model")
    with pytest.raises(FileNotFoundError, match="does not exist, and it is not an id on the Hugging Face hub"):
        MultiLabelModel.from_pretrained("../model")
