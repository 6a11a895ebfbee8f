"""What this package's tools add to a run, written into its config.

So it is in the config that a training dumps, and a stock tool that runs that one does the same.
Each addition has a switch in the config's entry `bnet_mm`, which a config or `--cfg-options` sets:
`bnet_mm=dict(exact_resume=False)`.
"""

from mmengine.config import Config
from mmengine.dist import barrier, get_dist_info
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader
from torch.hub import load_state_dict_from_url

from bnet_mm.engine.checkpoint_hook import BACKEND, WholeCheckpointHook
from bnet_mm.engine.dataset_check import DatasetCheckHook
from bnet_mm.engine.repeatable import RepeatableHook
from bnet_mm.engine.start_report import StartReportHook

MODULE = __name__
# The switches, and the hook that each puts into `custom_hooks`.
SWITCHES = {
    'data_check': DatasetCheckHook,
    'exact_resume': RepeatableHook,
    'start_report': StartReportHook,
    'whole_files': WholeCheckpointHook,
}

for _hook in SWITCHES.values():
    if _hook.__name__ not in HOOKS.module_dict:
        HOOKS.register_module(module=_hook)


def add_to_config(cfg: Config, training: bool = True) -> None:
    """Writes the additions into a config: what is there already, or switched off, stays so.

    Args:
        cfg: changed in place.
        training: False for a test, which takes the check of the data alone.
    """
    switches = {**dict.fromkeys(SWITCHES, True), **(cfg.get('bnet_mm') or {})}
    cfg.bnet_mm = switches
    imports = dict(cfg.get('custom_imports') or {})
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    imports['imports'] = [*names, *(name for name in (MODULE,) if name not in names)]
    cfg.custom_imports = imports
    hooks = list(cfg.get('custom_hooks') or [])
    present = {hook.get('type') for hook in hooks if isinstance(hook, dict)}
    for switch in ('data_check', 'exact_resume', 'start_report'):
        kind = SWITCHES[switch]
        ours = {kind, kind.__name__}
        if not switches[switch]:
            hooks = [h for h in hooks if not isinstance(h, dict) or h.get('type') not in ours]
        elif not present & ours and (training or switch == 'data_check'):
            hooks.append(dict(type=kind.__name__))
    cfg.custom_hooks = hooks
    if training:
        _write_whole(cfg, switches['whole_files'])


def _write_whole(cfg: Config, on: bool) -> None:
    hook = (cfg.get('default_hooks') or {}).get('checkpoint')
    if not hook or hook.get('type') not in ('CheckpointHook', WholeCheckpointHook.__name__):
        return
    # Storage that the user has chosen is theirs.
    elsewhere = hook.get('file_client_args') or '://' in (hook.get('out_dir') or '')
    ours = dict(backend=BACKEND)
    if on and not elsewhere and hook.get('backend_args') in (None, ours):
        hook['type'], hook['backend_args'] = WholeCheckpointHook.__name__, ours
    elif not on and hook['type'] == WholeCheckpointHook.__name__:
        hook['type'], hook['backend_args'] = 'CheckpointHook', None


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
