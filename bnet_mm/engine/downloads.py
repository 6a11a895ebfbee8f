"""Downloads of weights, read without running code that is in the file.

Importing this module changes what mmengine's `CheckpointLoader` does with http and https. The tools
name it in `custom_imports` of the config that they run (`bnet_mm.engine.additions`).
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlparse

from mmengine.dist import barrier, get_dist_info
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch.hub import download_url_to_file, get_dir

from bnet_mm.checkpoint import read_checkpoint


def _load_from_http(filename: str, map_location=None, model_dir=None) -> object:
    """Downloads to where torch does, once, and reads without running code that is in the file."""
    folder = Path(model_dir or Path(get_dir()) / 'checkpoints')
    path = folder / Path(urlparse(filename).path).name
    rank, processes = get_dist_info()
    if rank == 0:
        _fetch(filename, path)
    if processes > 1:
        barrier()
        _fetch(filename, path)  # a process on another machine has its own files
    # On the CPU, whatever `map_location` says: a network takes tensors from any device.
    return read_checkpoint(path)


def _fetch(url: str, path: Path) -> None:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        print_log(f'downloading {url} to {path}', logger='current')
        download_url_to_file(url, str(path), progress=os.isatty(0))


CheckpointLoader.register_scheme(('http://', 'https://'), _load_from_http, force=True)
