"""Uploading a folder to the Hugging Face Hub, by its own client (the extra `hub`)."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lambert.errors import UserError

_NAME = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*", re.ASCII)
_LOGIN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write"


def check_upload(name: str) -> None:
    """Raises UserError where the client is missing or the name is none, before any work."""
    if find_spec("huggingface_hub") is None:
        raise UserError(
            "the Hugging Face Hub needs the package huggingface_hub, which is not installed",
            remedy="Install it with: pip install 'lambert-bert[hub]'",
        )
    from huggingface_hub import get_token

    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name on the Hub", remedy="Write OWNER/NAME, as in acme/our-bert")
    if get_token() is None:
        raise UserError("no token for the Hugging Face Hub was found", remedy=_LOGIN)


def upload_folder(
    folder: Path, name: str, *, public: bool = False, revision: str | None = None, remedy: str | None = None
) -> str:
    """Create the repository if there is none, and upload all files of a folder in one commit.

    Args:
        name: OWNER/NAME, or NAME of the account that is logged in.
        public: whether a new repository can be read by all.
        revision: the branch to upload to, made from the main one where it is new; None: the main one.
        remedy: what to do where the upload fails; None: `hf upload` with this folder.

    Returns:
        The address of the repository.

    Raises:
        UserError: the client is missing, or the Hub refuses or cannot be reached. The folder stays as it is.
    """
    check_upload(name)
    from huggingface_hub import HfApi, errors

    again = remedy or f"The model is in {folder}; upload it later with `hf upload {name} {folder}`"
    api = HfApi()
    broken: Any = (*errors.HfHubHTTPError.__bases__, errors.HFValidationError)  # of its HTTP library, and OSError
    try:
        created = api.create_repo(name, private=not public, exist_ok=True)
        if revision is not None:
            api.create_branch(created.repo_id, branch=revision, exist_ok=True)
        message = f"Upload a model of lambert{f', {revision}' if revision else ''}"
        api.upload_folder(repo_id=created.repo_id, folder_path=folder, revision=revision, commit_message=message)
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        what = f"the Hub refuses {name} ({status}: {' '.join(str(error.server_message or '').split())[:200]})"
        raise UserError(what, remedy=f"{_LOGIN}. {again}" if status in (401, 403) else again) from None
    except broken as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{name} cannot be uploaded to the Hugging Face Hub ({said})", remedy=again) from None
    return str(created)
