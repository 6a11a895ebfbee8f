"""Downloads of weights, read without running code that is in the file.

Importing this module changes what mmengine's `CheckpointLoader` does with http and https. The tools
name it in `custom_imports` of the config that they run (`bnet_mm.engine.additions`).
"""

from __future__ import annotations

from mmengine.dist import barrier, get_dist_info
from mmengine.runner import CheckpointLoader
from torch.hub import load_state_dict_from_url


def _load_from_http(filename: str, map_location=None, model_dir=None):
    """Downloads as mmengine does, and reads without running code that is in the file."""

    def load():
        return load_state_dict_from_url(
            filename, model_dir=model_dir, map_location=map_location, weights_only=True
        )

    rank, processes = get_dist_info()
    checkpoint = load() if rank == 0 else None
    if processes > 1:
        barrier()
    return load() if rank else checkpoint


CheckpointLoader.register_scheme(('http://', 'https://'), _load_from_http, force=True)
