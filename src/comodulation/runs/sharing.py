"""Share runs: a self-contained folder, a model card, and the Hugging Face hub through its documented functions.

What is shared is what predicting needs: config.yaml, head.safetensors, adapter.safetensors, metrics.json, the card, and
backbone.safetensors where the backbone's weights are the user's own. What comes from elsewhere is not trusted: files have fixed
names, their sizes are known before they are fetched, nothing is unpickled, and no field names a file outside the folder.

(The hub's mixin writes attributes into the class and reads a config.json of constructor arguments before any check, which
fits neither a frozen dataclass nor such files.)
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ..data import REACHING, hub_errors
from ..errors import InputError, RunError, brief
from ..files import writable, write_bytes
from .config import RunConfig, write_config
from .folder import ADAPTER, CONFIG, HEAD, METRICS
from .shared_folder import BACKBONE, CARD, FILES, OPTIONAL, check_size, portable

MESSAGE = "Run of comodulation"  # of the commit


def save_pretrained(source: Path, config: RunConfig, card: str, folder: str | Path) -> Path:
    """Write a run to a folder that holds everything needed to predict, and a model card.

    Args:
        source: folder of a finished run, which the caller has loaded: what cannot be loaded is not handed on.
        config: of the run. card: its model card.
        folder: new or empty.

    Returns:
        The folder.

    Raises:
        InputError: the run is damaged, or the folder is not empty. RunError: it cannot be written.
    """
    target = Path(folder)
    handed_on = portable(config)
    with writable(target):
        if found := sorted(path.name for path in target.iterdir()):
            raise InputError(f"{target} is not empty (it holds {brief(found[0])}); choose another folder")
        try:
            for name in (HEAD, ADAPTER, METRICS):
                write_bytes(target / name, (source / name).read_bytes())
            if handed_on.backbone.weights == BACKBONE:
                shutil.copyfile(config.backbone.weights, target / BACKBONE)
        except OSError as error:
            raise RunError(f"cannot copy {source} to {target}: {error.strerror or error}") from error
        write_bytes(target / CARD, card.encode())
        write_bytes(target / CONFIG, write_config(handed_on).encode())
    return target


def download(
    repo_id: str, *, revision: str | None, token: str | None, cache: Path | None, endpoint: str | None
) -> Path:
    """Fetch the files of a shared run, and no others, into the hub's cache; the folder they lie in.

    Raises:
        InputError: no such repository or revision, a file missing or too large, a hub that cannot be reached.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import EntryNotFoundError

    places: dict[str, Path] = {}
    commit = revision
    with hub_errors(repo_id):
        for name in (*FILES, *OPTIONAL):
            try:
                url = hf_hub_url(repo_id, name, revision=commit, endpoint=endpoint)
                found = get_hf_file_metadata(url, token=token, timeout=REACHING, endpoint=endpoint)
                check_size(name, found.size)
                commit = found.commit_hash or commit  # all files of one state, whatever is pushed in between
                places[name] = Path(
                    hf_hub_download(
                        repo_id, name, revision=commit, token=token, cache_dir=cache, endpoint=endpoint,
                        etag_timeout=REACHING,
                    )
                )  # fmt: skip
            except EntryNotFoundError:
                if name in FILES:
                    raise InputError(f"{repo_id!r} is not a shared run: it has no {name}") from None
    return places[CONFIG].parent


def push_to_hub(
    source: Path,
    config: RunConfig,
    card: str,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload a run with its model card, in one commit; the repository is made if it is not there.

    Args:
        source, config, card: as in ``save_pretrained``.
        repo_id: "name" or "owner/name".
        private: of a repository that is made; None takes the owner's default.
        token: of the hub; None takes the one that is logged in.
        endpoint: address of the hub, if it is another one.

    Returns:
        Address of the commit.

    Raises:
        InputError: the run is damaged; the hub cannot be reached, or refuses.
    """
    import tempfile

    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as place:
        folder = save_pretrained(source, config, card, Path(place) / "run")
        with hub_errors(repo_id):
            api = HfApi(endpoint=endpoint, token=token)
            full_name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            return str(api.upload_folder(repo_id=full_name, folder_path=folder, commit_message=MESSAGE).commit_url)
