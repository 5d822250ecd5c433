"""What several test files import."""


class Killed(Exception):  # noqa: N818
    """Raised by a test to end a run in the middle of its work."""
