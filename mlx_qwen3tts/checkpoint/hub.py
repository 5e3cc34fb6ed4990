"""Where a model lies: a folder here, or a repository on the Hugging Face Hub."""

import contextlib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path

from ..errors import ModelNotFound
from ..files.exchange import restore

WHOLE = ("*.json", "*.txt", "model*.safetensors", "speech_tokenizer/*")
ALONE = ("config.json", "model*.safetensors*")
CODEC_INSIDE = ("config.json", "speech_tokenizer/*")
SHIPPED = {"miniature": Path(__file__).parent.parent / "miniature"}  # models that come with the package, by name
PATIENCE = 10  # seconds to wait for the hub's first answer


def resolve(model: str | Path, patterns: Collection[str] = WHOLE, revision: str | None = None) -> Path:
    """The folder of `model`, a path, a hub id or the name of one that is SHIPPED; a folder of that name is `./NAME`.

    From the hub only files that match `patterns` are fetched. ModelNotFound for what is neither.
    """
    if str(model) in SHIPPED:
        return SHIPPED[str(model)]
    folder = Path(os.path.expanduser(model))  # Path's own raises RuntimeError for ~nobody
    if folder.name and not folder.exists():
        with contextlib.suppress(OSError):  # a folder that is not ours to write: then it is not found
            restore(folder)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelNotFound(f"model {str(model)!r} is a file, not a folder", param="model")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", str(model)):
        first = "run convert first, try --model miniature, or " if str(model) == "mlx_model" else ""
        raise ModelNotFound(
            f"model {str(model)!r}: no such folder; {first}name a folder or a hub id owner/name", param="model"
        )
    return _download(str(model), patterns, revision)


def _download(repo: str, patterns: Collection[str], revision: str | None) -> Path:
    # Imported here: the hub's client costs a quarter of a second that local folders need not pay.
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # its HTTP client's: httpx or httpx2, by its version
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    silence = None
    try:
        try:
            # snapshot_download itself waits for minutes where a firewall swallows what is sent.
            HfApi().model_info(repo, revision=revision, timeout=PATIENCE)
        except HfHubHTTPError:
            pass  # an answer, which snapshot_download gets too: it knows what the cache can replace
        except OfflineModeIsEnabled:
            silence = "HF_HUB_OFFLINE is set, and the files are not in the cache"
        except HTTPError as error:
            silence = f"no answer ({error}); see to the network, or name a folder"
        cached = silence is not None
        folder = snapshot_download(repo, revision=revision, allow_patterns=list(patterns), local_files_only=cached)
        return Path(folder)
    except GatedRepoError:
        reason = "its owner grants access on its page there; ask for it, then log in with `hf auth login`"
    except RepositoryNotFoundError:
        reason = "it has no such repository, or a private one: see the spelling, or log in with `hf auth login`"
    except RevisionNotFoundError:
        reason = f"it has no revision {revision or 'main'!r}"
    except json.JSONDecodeError:
        reason = "what answers is not the hub; see to the network"
    except (HTTPError, ValueError, LocalEntryNotFoundError) as error:  # ValueErrors are about the name
        reason = silence or next(iter(str(error).splitlines()), type(error).__name__)
    raise ModelNotFound(
        f"model {repo!r} is not a folder here and could not be fetched from the hub: {reason}", param="model"
    )
