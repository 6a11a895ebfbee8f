"""Makes mmengine translate names where it loads a checkpoint (`init_cfg`, `load_from`)."""

from functools import wraps

import mmengine.runner.checkpoint as mmengine_checkpoint
import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader

from bnet_mm.checkpoint import adapt, read_checkpoint


def extend_mmengine() -> None:
    """Lets mmengine translate names with `adapt`, and read safetensors; once is enough."""
    CheckpointLoader.register_scheme(r'.*\.safetensors$', load_from_safetensors, force=True)
    original = mmengine_checkpoint.load_state_dict
    if hasattr(original, 'adapts_names'):
        return

    # torch's hooks come too late: the loader hands each module only the tensors of its own name, so
    # that a backbone never sees those with a 'backbone.' too many or too few.
    @wraps(original)
    def load_state_dict(module, state_dict, *args, **kwargs):
        model = module
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        return original(module, adapt(state_dict, model), *args, **kwargs)

    load_state_dict.adapts_names = True
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
