"""mlmetric: the multi-label layer for PyTorch metric learning."""

from importlib.metadata import version

__version__ = version("mlmetric")
