"""SHA-256 of texts and bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def sha256_hex(blocks: Iterable[str | bytes | memoryview]) -> str:
    """Return the SHA-256 digest of all blocks joined, as 64 hexadecimal digits; texts are encoded as UTF-8."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block.encode(errors="surrogatepass") if isinstance(block, str) else block)
    return digest.hexdigest()
