"""Where a model lies: a folder here, or a repository on the Hugging Face Hub."""

import contextlib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path

from ..errors import CheckpointError, ModelNotFound, WrongType
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
    if not isinstance(model, str | Path):
        raise WrongType(f"model must be a folder or a hub id, not of type {type(model).__name__}", param="model")
    if str(model) in SHIPPED:
        return SHIPPED[str(model)]
    folder = Path(os.path.expanduser(model))  # Path's own raises RuntimeError for ~nobody
    try:
        if folder.name and not folder.exists():
            with contextlib.suppress(OSError):  # a folder that is not ours to write: then it is not found
                restore(folder)
        there, is_folder = folder.exists() and str(model) != "", folder.is_dir()
    except OSError:  # of a name that is too long
        there = is_folder = False
    if there and is_folder:
        return folder
    if there:
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


def local(folder: str | Path) -> Path:
    """A folder that the caller says is here, as a Path; WrongType for what is not a path."""
    if not isinstance(folder, str | Path):
        raise WrongType(f"folder must be a path, not of type {type(folder).__name__}", param="folder")
    return Path(folder)


def lacking(folder: Path, name: str, named: bool = False) -> CheckpointError:
    """The error for a file that a model folder lacks. It says so where the folder's download was cut off.

    named: whether the folder's own index names the file.
    """
    because = ", which its index names" if named else ""
    return CheckpointError(f"{folder} has no {name}{because}{_unfinished(folder, named)}")


def _unfinished(folder: Path, named: bool) -> str:
    """What to add where a folder lacks a file: that its download is unfinished and how to go on, or nothing.

    The hub's client writes to `*.incomplete` first: among the blobs of its cache, beside which a folder of links stands
    for each revision (models--OWNER--NAME/snapshots/REVISION), or under `.cache` in a folder that the user chose.
    """
    folder = folder.absolute()
    model = folder.parent if folder.name == "speech_tokenizer" else folder
    cache = model.parent.parent
    if model.parent.name == "snapshots" and cache.name.startswith("models--"):
        sure = named or any((cache / "blobs").glob("*.incomplete"))
        repo = cache.name.removeprefix("models--").replace("--", "/", 1)
        return f"; {'its' if sure else 'perhaps its'} download is unfinished: `hf download {repo}` fetches the rest"
    if any(model.glob(".cache/huggingface/download/**/*.incomplete")):
        return "; its download is unfinished: start it again, and it goes on from there"
    return "; its download or copy is unfinished" if named else ""
