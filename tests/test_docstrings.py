import pytest

from mlmetric._deprecation import deprecated
from mlmetric._docstrings import inherit_docs


def source(rows, *, k=1, **options):
    """Count.

    Args:
        rows: Shape `(N, D)`,
            any dtype.
        k: How many are looked at.
        **options: Others.

    Returns:
        A number.

    Raises:
        ValueError: If `k` is below 1.
    """


def test_missing_parameters_are_described_as_in_the_source_in_the_order_of_the_signature():
    @inherit_docs(source, k="looked at=>found")
    def target(extra, rows, *, k=2, **options):
        """Count others.

        Args:
            extra: One of its own.

        Returns:
            Another number.

        Examples:
            >>> 1
            1
        """

    assert target.__doc__.splitlines() == [
        "Count others.",
        "",
        "Args:",
        "    extra: One of its own.",
        "    rows: Shape `(N, D)`,",
        "        any dtype.",
        "    k: How many are found.",
        "    **options: Others.",
        "",
        "Returns:",
        "    Another number.",
        "",
        "Raises:",
        "    ValueError: If `k` is below 1.",
        "",
        "Examples:",
        "    >>> 1",
        "    1",
    ]


def test_class_inherits_the_parameters_of_its_constructor():
    @inherit_docs(source)
    class Target:
        """Counts."""

        def __init__(self, rows):
            pass

    assert Target.__doc__.startswith("Counts.\n\nArgs:\n    rows: Shape `(N, D)`,\n        any dtype.\n\nReturns:")


def test_parameter_described_nowhere_is_an_error():
    def target(unknown):
        """Count."""

    with pytest.raises(ValueError, match=r"target: `unknown` is described neither here nor in"):
        inherit_docs(source)(target)
    with pytest.raises(ValueError, match=r"no 'other' in the inherited description of `k`"):
        inherit_docs(source, k="other=>found")(target)


def test_function_without_a_docstring_stays_without():
    assert inherit_docs(source)(lambda rows: rows).__doc__ is None


def test_deprecated_function_warns_where_it_is_called_and_does_what_it_did():
    @deprecated(since="1.2", removed_in="1.4", instead="`new`")
    def old(value):
        """Return the value."""
        return value

    with pytest.warns(
        FutureWarning, match=r"old` is deprecated since mlmetric 1\.2 and will be removed in 1\.4: use `new`"
    ) as caught:
        assert old(3) == 3
    assert caught[0].filename == __file__
    assert old.__doc__ == "Return the value.\n\nDeprecated since 1.2, removed in 1.4: use `new`."
