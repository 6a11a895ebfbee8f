"""What one line gives: BNET in every backbone of the stock configs, and in models of timm."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm, named_norms
from bnet_mm.models.finding import find_blocks
from bnet_mm.models.placement import enhance
from bnet_mm.openmmlab.libraries import bases_by_module

PAPER, EVERY, REFUSED, ERROR = "the paper's place", 'every norm', 'refused', 'error'
NORM_CFG = dict(type='BNET', k=3)
# MMAction2's recognizers build these themselves, and `mmcls` is MMPretrain's old name.
ELSEWHERE = ('torchvision.', 'timm.', 'mmcls.')
# One small model of each convolutional family of timm.
FAMILIES = (
    *('botnet26t_256', 'convmixer_768_32', 'cspdarknet53', 'cspresnet50', 'cspresnext50'),
    *('darknet53', 'densenet121', 'dla34', 'dpn68', 'ecaresnet26t', 'efficientformer_l1'),
    *('efficientnet_b0', 'ese_vovnet19b_dw', 'fbnetc_100', 'gcresnet33ts', 'gernet_s'),
    *('ghostnet_100', 'halonet26t', 'hardcorenas_a', 'hgnet_tiny', 'hrnet_w18_small'),
    *('inception_resnet_v2', 'inception_v3', 'lcnet_050', 'mixnet_s', 'mnasnet_100'),
    *('mobilenetv2_100', 'mobilenetv3_small_100', 'mobilenetv4_conv_small', 'mobileone_s0'),
    *('mobilevit_xxs', 'regnetx_002', 'regnety_002', 'repvgg_a0', 'res2net50_14w_8s'),
    *('res2next50', 'resnest14d', 'resnet18', 'resnet50', 'resnet50d', 'resnetaa50d'),
    *('resnetblur18', 'resnetrs50', 'resnetv2_50', 'resnext50_32x4d', 'rexnet_100'),
    *('selecsls42b', 'seresnet50', 'skresnet18', 'tf_efficientnetv2_s', 'tinynet_a'),
    *('tresnet_m', 'vgg11_bn', 'vovnet39a', 'wide_resnet50_2', 'xception41'),
)


@dataclass(frozen=True)
class Row:
    """What one line gives for one network.

    Attributes:
        library: its package.
        network: the class of the backbone, or the name of the model.
        config: a stock config that has it; '' for timm.
        outcome: `PAPER`, `EVERY`, `REFUSED` (with a sentence) or `ERROR` (which is a defect).
        enhanced, norms: how many norms are BNET, and how many there are.
        sentence: of a refusal or an error.
    """

    library: str
    network: str
    config: str
    outcome: str
    enhanced: int = 0
    norms: int = 0
    sentence: str = ''


def stock_backbones(library: str) -> Iterator[tuple[str, Config]]:
    """Yields each distinct backbone of a library's configs, and the first config that has it."""
    root = Path(str(find_spec(library).origin)).parent / '.mim/configs'  # type: ignore[union-attr]
    seen = set()
    for path in sorted(root.rglob('*.py')):
        if '_base_' in path.parts:
            continue
        try:
            with bases_by_module(), warnings.catch_warnings():
                warnings.simplefilter('ignore')
                cfg = Config.fromfile(path, import_custom_modules=False)
        except Exception:  # of configs that ask for what is not installed
            continue
        model = cfg.get('model') or {}
        backbone = next((model[k] for k in ('backbone', 'image_encoder') if model.get(k)), None)
        if not isinstance(backbone, dict) or 'type' not in backbone:
            continue
        if str(backbone['type']).startswith(ELSEWHERE):
            continue
        plain = {k: v for k, v in backbone.items() if k not in ('init_cfg', 'pretrained')}
        key = json.dumps(plain, sort_keys=True, default=str)
        if key not in seen:
            seen.add(key)
            yield str(path.relative_to(root)), backbone


def try_backbone(library: str, config: str, backbone: dict) -> Row:
    """Builds a stock backbone with one line, and says what came of it."""
    with_line = deepcopy(backbone)
    before = with_line.get('norm_cfg')
    with_line['norm_cfg'] = {**(before if isinstance(before, dict) else {}), **NORM_CFG}
    for weights in {'init_cfg', 'pretrained', 'pretrained2d'} & set(with_line):
        with_line[weights] = None
    name = str(getattr(backbone['type'], '__name__', backbone['type']))
    row = (library, name, config)
    import_module(f'{library}.models')
    with MODELS.switch_scope_and_registry(library) as registry:
        return _outcome(row, lambda: registry.build(deepcopy(with_line)))


def try_timm(name: str) -> Row:
    """Enhances a model of timm, and says what came of it."""
    timm = import_module('timm')
    return _outcome(('timm', name, ''), lambda: enhance(timm.create_model(name), k=3))


def _outcome(row: tuple[str, str, str], build) -> Row:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            try:
                with torch.device('meta'):
                    model = build()
            except RuntimeError:  # some need numbers when they are built
                model = build()
        except InputError as error:
            return Row(*row, REFUSED, sentence=str(error))
        except Exception as error:
            sentence = ' '.join(f'{type(error).__name__}: {error}'.split())
            return Row(*row, ERROR, sentence=sentence[:300])
    enhanced = sum(isinstance(norm, EnhancedNorm) for _, norm in named_norms(model))
    outcome = PAPER if find_blocks(model) else EVERY
    if not enhanced:
        outcome = ERROR
    return Row(*row, outcome, enhanced, sum(1 for _ in named_norms(model)))
