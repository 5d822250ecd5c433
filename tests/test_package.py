"""The package itself: submodules are imported when they are first used."""

import importlib.metadata
import subprocess
import sys

import pytest

import mlmetric


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


def test_import_of_the_package_imports_neither_torch_nor_numpy():
    assert run("import sys, mlmetric; print(*sorted({'torch', 'numpy', 'sklearn'} & set(sys.modules)))") == []


def test_submodules_are_attributes_and_star_import_gives_all_of_them():
    program = (
        "import mlmetric; print(mlmetric.miners.MultiLabelSemiHardMiner.__name__);"
        "from mlmetric import *; print(*(name for name in mlmetric.__all__ if name in globals()))"
    )
    assert run(program) == ["MultiLabelSemiHardMiner", *mlmetric.__all__]


def test_dir_lists_the_submodules_and_the_version():
    assert {*mlmetric.__all__, "__version__"} <= set(dir(mlmetric))


def test_package_has_no_other_attributes():
    with pytest.raises(AttributeError, match="module 'mlmetric' has no attribute 'optimizers'"):
        mlmetric.optimizers  # noqa: B018


def test_package_that_is_not_installed_has_no_version(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(AttributeError, match="no attribute '__version__': it is not installed"):
        mlmetric.__version__  # noqa: B018


@pytest.mark.slow
def test_import_of_data_imports_neither_scikit_learn_nor_torchvision_nor_pillow():
    absent = "{'sklearn', 'torchvision', 'PIL', 'pytorch_metric_learning'}"
    program = (
        f"import sys, mlmetric.data; print('imported:', *sorted({absent} & set(sys.modules)));"
        "from mlmetric.data import *; print(MultiLabelStratifiedKFold.__name__, read_image.__name__)"
    )
    assert run(program) == ["imported:", "MultiLabelStratifiedKFold", "read_image"]


def test_data_lists_its_names_and_has_no_others():
    import mlmetric.data

    assert set(mlmetric.data.__all__) <= set(dir(mlmetric.data))
    with pytest.raises(AttributeError, match=r"module 'mlmetric\.data' has no attribute 'KFold'"):
        mlmetric.data.KFold  # noqa: B018
