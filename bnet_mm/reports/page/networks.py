"""Sections on what the networks cost, counted and measured."""

from collections.abc import Sequence

import torch

from bnet_mm.analysis.complexity import config_costs, paper_row
from bnet_mm.benchmark.machine import describe
from bnet_mm.openmmlab.running import input_shape
from bnet_mm.reports.costs import LEGEND
from bnet_mm.reports.page.compared import Compared
from bnet_mm.reports.page.measured import ROUNDS, measure
from bnet_mm.reports.page.page import Section, Table
from bnet_mm.reports.page.parts import Parts


def costs_section(compared: Sequence[Compared], parts: Parts) -> Section:
    """Returns parameters and operations, as `tools/complexity.py` counts them."""
    shape = input_shape(compared[0].cfg)
    counted = [
        parts.get(
            'costs',
            [c.network(), c.group.name, shape],
            f'counting parameters and operations of {c.label} (seconds)',
            lambda c=c: _count(c, shape),
        )
        for c in compared
    ]
    first = counted[0]
    rows = []
    for key, name, digits in (
        ('parameters', 'parameters, millions', 3),
        ('trained', 'of these trained, millions', 3),
        ('macs', 'GMACs', 3),
        ('flops', 'GFLOPs as the paper counts', 3),
    ):
        cells = []
        for costs in counted:
            text = f'{costs[key]:.{digits}f}'
            if costs is not first:
                text += f'\n{costs[key] - first[key]:+.{digits}f}'
            cells.append(text)
        rows.append([name, *cells])
    for key, name in (('params', "the paper's parameters"), ('gflops', "the paper's GFLOPs")):
        if any(key in costs['paper'] for costs in counted):
            rows.append([name, *(str(costs['paper'].get(key, '-')) for costs in counted)])
    text = f'Counted at {shape[1]} x {shape[0]} pixels, without weights or data. {LEGEND}'
    return Section('Costs', text, [Table(['', *(c.label for c in compared)], rows)])


def speed_section(compared: Sequence[Compared], parts: Parts) -> Section:
    """Returns the time of a forward pass and the bytes kept for the backward pass."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    shape = input_shape(compared[0].cfg)
    machine = {k: v for k, v in describe(device).items() if k != 'date'}
    measured = parts.get(
        'speed',
        [[c.network() for c in compared], shape, machine],
        f'timing {len(compared)} networks at {shape[1]}x{shape[0]} (a minute or a few)',
        lambda: measure([c.cfg for c in compared], shape, device),
    )
    rows = []
    for state, name in (('', 'forward pass, 1 picture'), ('deployed_', 'the same, deployed')):
        cells = []
        for m in measured:
            if f'{state}seconds' not in m:
                cells.append('cannot be folded')
                continue
            text = f'{1000 * m[f"{state}seconds"]:.1f} ms'
            if m is not measured[0] or state:
                low, high = m[f'{state}ratio_low'], m[f'{state}ratio_high']
                text += f'\n{m[f"{state}ratio"]:.2f} times ({low:.2f} to {high:.2f})'
            cells.append(text)
        rows.append([name, *cells])
    kept = [_memory(m['memory'], measured[0]['memory']) for m in measured]
    rows.append(['kept for backward, backbone', *kept])
    where = machine.get('gpu') or f'{machine["cpu"]}, {machine["threads"]} threads'
    text = (
        f'Taken in turn, {ROUNDS} rounds, on {where}, torch {machine["torch"]}, at {shape[1]} x '
        f'{shape[0]} pixels: medians, and below them the ratio to the first column (not deployed) '
        f'with its quartiles. Deployed: norms folded, as tools/deploy.py does. Memory is counted, '
        f'not measured: the bytes that autograd keeps of one picture between forward and backward '
        f'pass of the training backbone.'
    )
    return Section('Speed and memory', text, [Table(['', *(c.label for c in compared)], rows)])


def _count(compared: Compared, shape: tuple[int, int]) -> dict:
    cost = config_costs(compared.group.runs[0].config, shape, None).cost
    return {
        'parameters': cost.parameters / 1e6,
        'trained': cost.trained / 1e6,
        'macs': cost.macs / 1e9,
        'flops': cost.flops / 1e9,
        'paper': paper_row(compared.group.name),
    }


def _memory(value: int, first: int) -> str:
    text = f'{value / 2**20:.1f} MiB'
    return text if value == first or not first else f'{text}\n{value / first:.3f} times'
