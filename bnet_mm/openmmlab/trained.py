"""A config's model with the weights of a checkpoint that is exactly its own."""

from pathlib import Path

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from bnet_mm.checkpoint import contents_of, read_checkpoint
from bnet_mm.checkpoint.adapt import match_checkpoint
from bnet_mm.checkpoint.contents import Contents
from bnet_mm.errors import InputError
from bnet_mm.openmmlab import dataless
from bnet_mm.openmmlab.config import check_norms
from bnet_mm.openmmlab.libraries import LIBRARIES, check_library, config_errors


def load_trained(cfg: Config, checkpoint: str | Path) -> tuple[nn.Module, Contents]:
    """Returns the model of `cfg`, in evaluation mode on the CPU, and what its file holds.

    Args:
        cfg: a whole config.
        checkpoint: the trained weights.

    Raises:
        InputError: one of the two cannot be used, or the checkpoint is not the config's.
    """
    scope = cfg.get('default_scope')
    if scope not in LIBRARIES:
        raise InputError(f'the config is of no OpenMMLab library: default_scope is {scope!r}')
    if not cfg.get('model'):
        raise InputError('the config has no model')
    check_library(scope)
    check_norms(cfg.model)
    contents = contents_of(read_checkpoint(checkpoint))
    with config_errors():
        model = revert_sync_batchnorm(dataless.build(cfg, 'cpu'))
    _load(model, contents.state, checkpoint)
    model.eval()
    return model, contents


def _load(model: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    state = {name.removeprefix('module.'): value for name, value in state.items()}
    state = dict(match_checkpoint(model, state))
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(
            f'checkpoint {path} is not of this config: {str(error).splitlines()[-1].strip()}'
        ) from error
    missing = [name for name in missing if not name.endswith('num_batches_tracked')]
    for names, what in ((missing, 'lacks'), (unexpected, 'has, and the model has not,')):
        if names:
            raise InputError(
                f'checkpoint {path} is not of this config: it {what} {len(names)} tensors, '
                f'{names[0]} for one'
            )
