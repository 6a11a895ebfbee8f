"""What this package's tools add to a run, written into its config.

So it is in the config that a training dumps, and a stock tool that runs that one does the same.
Each addition has a switch in the config's entry `bnet_mm`, which a config or `--cfg-options` sets:
`bnet_mm=dict(exact_resume=False)`.
"""

from __future__ import annotations

from importlib import import_module

from mmengine.config import Config
from mmengine.registry import HOOKS

import bnet_mm.engine.cpu_wrapper  # noqa: F401  (registers the wrapper that a dumped config names)
from bnet_mm.engine.checkpoint_hook import BACKEND, WholeCheckpointHook
from bnet_mm.engine.dataset_check import DatasetCheckHook
from bnet_mm.engine.repeatable import RepeatableHook
from bnet_mm.engine.start_report import StartReportHook

MODULE = __name__
DOWNLOADS = 'bnet_mm.engine.downloads'
# The switches, and the hook that each puts into the config.
HOOKED = {
    'data_check': DatasetCheckHook,
    'exact_resume': RepeatableHook,
    'start_report': StartReportHook,
    'whole_files': WholeCheckpointHook,
}
# Beside these: downloads read without running their code (`downloads`), and synchronized norms on
# CPUs (`processes`).
SWITCHES = (*HOOKED, 'safe_downloads', 'cpu_sync_bn')

for _hook in HOOKED.values():
    if _hook.__name__ not in HOOKS.module_dict:
        HOOKS.register_module(module=_hook)


def add_to_config(cfg: Config, training: bool = True) -> None:
    """Writes the additions into a config: what is there already, or switched off, stays so.

    Args:
        cfg: changed in place.
        training: False for a test, which takes the check of the data and the report on weights.
    """
    switches = {**dict.fromkeys(SWITCHES, True), **(cfg.get('bnet_mm') or {})}
    cfg.bnet_mm = switches
    imports = dict(cfg.get('custom_imports') or {})
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    names = [name for name in names if name not in (MODULE, DOWNLOADS)]
    names += [MODULE, DOWNLOADS] if switches['safe_downloads'] else [MODULE]
    imports['imports'] = names
    cfg.custom_imports = imports
    if switches['safe_downloads']:
        import_module(DOWNLOADS)
    hooks = list(cfg.get('custom_hooks') or [])
    present = {hook.get('type') for hook in hooks if isinstance(hook, dict)}
    for switch in ('data_check', 'exact_resume', 'start_report'):
        kind = HOOKED[switch]
        ours = {kind, kind.__name__}
        if not switches[switch]:
            hooks = [h for h in hooks if not isinstance(h, dict) or h.get('type') not in ours]
        elif not present & ours and (training or switch != 'exact_resume'):
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
