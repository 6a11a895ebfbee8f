"""What a config's model costs, beside its BN baseline and beside the paper's figures."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from mmengine.config import Config

from bnet_mm.analysis.counting import Complexity, count_complexity
from bnet_mm.engine.config import load_config
from bnet_mm.openmmlab.models import build_model
from bnet_mm.openmmlab.norm_cfg import norm_specs
from bnet_mm.openmmlab.running import example_input, input_shape, run_model

PAPER_COSTS = Path(__file__).with_name('paper_costs.yml')


@dataclass(frozen=True)
class CostRow:
    """One line of a table of costs.

    Attributes:
        name: the config, or the paper's model.
        norm: the norm, as the paper writes it.
        shape: height and width of the input.
        cost: what it costs.
        over_bn: what that is more than the same network with plain BN.
        paper: the paper's `table`, `params` (millions) and `gflops`, as far as it has them.
    """

    name: str
    norm: str
    shape: tuple[int, int]
    cost: Complexity
    over_bn: Complexity
    paper: dict


def config_costs(path: str | Path, shape: tuple[int, int] | None, options: dict | None) -> CostRow:
    """Returns the costs of the model of a config file, without any dataset or weights.

    Args:
        path: the config, of any OpenMMLab library.
        shape: height and width of the input; without it the library's usual one, at which the
            paper's figures hold.
        options: entries of the config to change.

    Raises:
        InputError: the config cannot be read or built, or its model cannot run on an image alone.
    """
    cfg = load_config(path, options)
    paper = {}
    if shape is None and not options:
        paper = paper_row(Path(path).stem)
    shape = shape or input_shape(cfg)
    norms = list(dict.fromkeys(str(spec) for _, _, spec in norm_specs(cfg.get('model'))))
    cost = _count(cfg, shape)
    baseline = _count(bn_baseline(cfg), shape) if norms else cost
    norm = ', '.join(norms) or str(
        cfg.model.get('backbone', {}).get('norm_cfg', {}).get('type', '-')
    )
    return CostRow(Path(path).stem, norm, shape, cost, cost - baseline, paper)


def bn_baseline(cfg: Config) -> Config:
    """Returns a copy of `cfg` in which every BNET is the plain batch norm it was built on."""
    baseline = deepcopy(cfg)
    for _, norm_cfg, spec in list(norm_specs(baseline.model)):
        norm_cfg.clear()
        norm_cfg.update(spec.plain)
    return baseline


def paper_costs(configs: str | Path) -> Iterator[CostRow]:
    """Yields every row of the paper that has a cost column, with ours beside it.

    Args:
        configs: the folder of this package's configs.
    """
    for row in _paper_rows():
        name = f'{row["model"]}, table {row["table"]}'
        ours = _shipped(str(Path(configs) / f'{row["config"]}.py'))
        yield CostRow(name, row['norm'], ours.shape, ours.cost, ours.over_bn, row)


@cache
def _shipped(path: str) -> CostRow:
    return config_costs(path, None, None)


@cache
def _paper_rows() -> list[dict]:
    return yaml.safe_load(PAPER_COSTS.read_text())


def paper_row(config: str) -> dict:
    """Returns the paper's costs of a config, those of the first table it stands in, or nothing."""
    return next((row for row in _paper_rows() if row['config'] == config), {})


def _count(cfg: Config, shape: tuple[int, int]) -> Complexity:
    def count_on(device: str) -> Complexity:
        model = build_model(cfg, device)
        inputs = example_input(model, shape, cfg)
        return count_complexity(model, lambda: run_model(model, inputs))

    try:
        return count_on('meta')
    except (RuntimeError, TypeError):
        # Some models decide by values, or use operators that have no meta version: these compute.
        return count_on('cpu')
