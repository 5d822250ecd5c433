"""Download from and upload to the Hugging Face hub with huggingface_hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mlmetric.models._pretrained_folder import CARD, CONFIG, TERMS, WEIGHTS

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")


def download(
    repo_id: str,
    *,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    token: str | bool | None,
) -> Path:
    """Download the files of a model, unless they are in the cache, and return their folder.

    Raises:
        FileNotFoundError: If `repo_id` cannot be an id on the hub.
        OSError: If the download fails.
        ImportError: If huggingface_hub is not installed.
    """
    if not _REPO_ID.fullmatch(repo_id) or repo_id.startswith("."):
        kind = "is a file, not the folder of a model" if Path(repo_id).exists() else "does not exist"
        raise FileNotFoundError(
            f"The folder {repo_id} {kind}, and it is not an id on the Hugging Face hub, 'user/name'."
        )
    hub = _huggingface_hub(f"There is no folder {repo_id}; loading it from the Hugging Face hub")
    try:
        folder = hub.snapshot_download(
            repo_id,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=[CONFIG, WEIGHTS, CARD, TERMS],
        )
    except Exception as error:  # of huggingface_hub, its HTTP client and the network
        raise OSError(
            f"There is no folder {repo_id}, and it could not be downloaded from the Hugging Face hub "
            f"({type(error).__name__}: {_first_line(error)})."
        ) from error
    return Path(folder)


def upload(
    folder: str,
    repo_id: str,
    *,
    private: bool | None,
    token: str | bool | None,
    commit_message: str,
    revision: str | None,
) -> str:
    """Upload a folder, and return the address of the commit.

    Raises:
        OSError: If the upload fails.
        ImportError: If huggingface_hub is not installed.
    """
    api = _huggingface_hub("`push_to_hub`").HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=commit_message, revision=revision
        )
    except Exception as error:
        raise OSError(
            f"{repo_id} could not be uploaded to the Hugging Face hub ({type(error).__name__}: {_first_line(error)})."
        ) from error
    return str(commit.commit_url)


def _huggingface_hub(purpose: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(f'{purpose} requires huggingface_hub: `pip install "mlmetric[hub]"`.') from error
    return huggingface_hub


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
