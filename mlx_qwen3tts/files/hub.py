"""Where a model lies: a folder here, or a repository on the Hugging Face Hub."""

import re
from pathlib import Path

from .weights import CheckpointError

WHOLE = ("*.json", "*.txt", "model*.safetensors", "speech_tokenizer/*")
ENCODER = ("config.json", "model*.safetensors*")
CODEC = ("config.json", "model*.safetensors*", "speech_tokenizer/*")


def resolve(model, patterns=WHOLE, revision=None):
    """The folder of `model`, a path or a hub id; from the hub only files that match `patterns` are fetched."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"model {str(model)!r} is a file, not a folder")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", str(model)):
        hint = "; run convert first or name a folder or hub id" if str(model) == "mlx_model" else ""
        raise CheckpointError(f"model {str(model)!r}: no such folder{hint}")
    return _download(str(model), patterns, revision)


def _download(repo, patterns, revision):
    # Imported here: the hub's client costs a quarter of a second that local folders need not pay.
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"model {repo!r} is no folder here and could not be fetched from the hub: {reason}"
        ) from None
