"""Makes mmengine's loading of checkpoints (`init_cfg`, `load_from`) know those of this package."""

from functools import wraps

import mmengine.runner.checkpoint as mmengine_checkpoint
import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader

from bnet_mm.checkpoint.adapt import match_checkpoint
from bnet_mm.checkpoint.reading import read_checkpoint


def extend_mmengine() -> None:
    """Lets mmengine match names with `match_checkpoint` and read safetensors; once is enough."""
    CheckpointLoader.register_scheme(r'.*\.safetensors$', load_from_safetensors, force=True)
    original = mmengine_checkpoint.load_state_dict
    if hasattr(original, 'matches_bnet'):
        return

    # Hooks of torch would come too late: the loader hands each module its own tensors only, so that
    # a backbone never sees those that lack, or have too much, a 'backbone.'.
    @wraps(original)
    def load_state_dict(module, state_dict, *args, **kwargs):
        model = module
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        return original(module, match_checkpoint(model, state_dict), *args, **kwargs)

    load_state_dict.matches_bnet = True
    mmengine_checkpoint.load_state_dict = load_state_dict


def load_from_safetensors(filename: str, map_location: str | torch.device | None) -> dict:
    """Reads a local safetensors file, as mmengine's other loaders read theirs.

    Raises:
        InputError: see `read_checkpoint`.
    """
    checkpoint = read_checkpoint(filename)
    device = map_location or 'cpu'
    state = {name: value.to(device) for name, value in checkpoint['state_dict'].items()}
    return {**checkpoint, 'state_dict': state}
