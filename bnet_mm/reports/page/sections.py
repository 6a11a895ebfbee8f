"""The sections of the report, each from the trainings that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from statistics import median

import torch
from matplotlib.figure import Figure as Canvas

from bnet_mm.analysis.comparison import LOSS, compare, papers_figures
from bnet_mm.analysis.complexity import Complexity, CostRow, config_costs, paper_row
from bnet_mm.analysis.detections import annotation_file, annotations_of, detect
from bnet_mm.analysis.images import no_longer_than
from bnet_mm.analysis.layers import NoBNETError, chosen_layers
from bnet_mm.analysis.tide import ErrorRow, errors_of_detections
from bnet_mm.benchmark.inference import ROUNDS, compare_configs
from bnet_mm.benchmark.machine import describe
from bnet_mm.engine.data.failures import build_dataset
from bnet_mm.engine.data.samples import files_of
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.models import load_model
from bnet_mm.openmmlab.running import input_shape
from bnet_mm.reports.comparison import comparison_table
from bnet_mm.reports.costs import cost_table
from bnet_mm.reports.curves import counts_differ, draw_curves, main_metric
from bnet_mm.reports.errors import draw_costs, draw_shares, error_table, legend_of_shares
from bnet_mm.reports.figures import Row, embed_figure, embed_image
from bnet_mm.reports.maps import Looking, attention_rows, heat_map_rows
from bnet_mm.reports.page.compared import Compared
from bnet_mm.reports.page.kept import Kept, digest, file_mark
from bnet_mm.reports.page.page import Figure, Gallery, Section
from bnet_mm.reports.table import Table

# Entries in which configs differ that say nothing of the experiment.
UNTOLD = ('work_dir', 'launcher', 'resume', 'load_from', 'randomness.seed', 'visualizer', 'log_')
CURVE = (4.2, 3.2)  # inches: text of 10 points can be read on a phone
LONGEST_ENTRY = 160
SAMPLES = 3
LONGEST = 400  # pixels of an image on the page


def configs_section(compared: Sequence[Compared]) -> Section:
    """Returns what was trained, and in which entries the configs differ."""
    rows = [
        ('config', [c.group.name for c in compared]),
        ('norm', [c.group.norm for c in compared]),
        ('seeds', [_seeds(c) for c in compared]),
        ('trained until', [_progress(c) for c in compared]),
        ('images per batch', [_batch(c) for c in compared]),
        ('time of an iteration', [_iteration(c) for c in compared]),
    ]
    tables = [Table(['', *_labels(compared)], [[name, *cells] for name, cells in rows])]
    differences = _differences(compared)
    if len(compared) > 1:
        if differences:
            caption = 'Every entry in which the configs differ; - where one has none.'
            tables.append(Table(['entry', *_labels(compared)], differences, caption))
        else:
            tables.append(Table(['entry'], [['The configs are the same.']]))
    return Section('Configs', 'What was trained, and in what the trainings differ.', tables)


def metrics_section(compared: Sequence[Compared], configs: Path) -> Section:
    """Returns the metrics of all runs, beside the paper's where it has these configs.

    Args:
        compared: the trainings.
        configs: the folder of this package's configs.
    """
    figures = compare([c.group for c in compared], configs)
    table = comparison_table(figures, papers_figures(configs), _labels(compared))
    text = 'The last evaluation and the best one. One seed cannot tell a gain from luck.'
    missing = [] if len(table.rows) > 1 else ['Nothing was evaluated while these trained.']
    return Section('Metrics', text, [table], missing=missing)


def curves_section(compared: Sequence[Compared]) -> Section:
    """Returns the course of loss and main metric, over epochs and over hours."""
    groups = [c.group for c in compared]
    runs = [run for group in groups for run in group.runs]
    metric = main_metric(runs)
    timed = all(run.hours() for run in runs)
    stepped = not counts_differ(runs)
    galleries = []
    for name in (LOSS, metric) if metric else (LOSS,):
        figures = []
        for over_time in [False] * stepped + [True] * timed:
            canvas = Canvas(figsize=CURVE, layout='constrained')
            draw_curves(canvas.subplots(), groups, name, over_time, _labels(compared))
            over = 'hours of training' if over_time else 'epochs or iterations'
            figures.append(Figure(embed_figure(canvas), f'{name} over {over}'))
        galleries.append(Gallery('', figures))
    missing = []
    if not galleries[0].figures:
        missing.append(
            'Some trainings count epochs and some iterations, and not all logged the time: there '
            'is no axis that they share.'
        )
    return Section(
        'Curves',
        'As figures 2 and 3 of the paper. Over hours, a norm has to make up for what it costs. '
        'Lines are means over seeds, bands reach from the lowest to the highest.',
        galleries=galleries,
        missing=missing,
    )


def costs_section(compared: Sequence[Compared], kept: Kept) -> Section:
    """Returns parameters and operations, as `tools/complexity.py` counts them."""
    shape = input_shape(compared[0].cfg)
    rows = []
    for c in compared:
        made_from = [c.network(), c.group.name, shape]
        what = f'counting parameters and operations of {c.label} (seconds)'
        counted = kept.get('costs', made_from, what, lambda c=c: _count(c, shape))
        costs = {key: Complexity(**counted[key]) for key in ('cost', 'over_bn')}
        rows.append(CostRow(**{**counted, **costs}))
    table = cost_table(rows, _labels(compared)).transposed()
    text = f'Counted at {shape[1]} x {shape[0]} pixels, without weights or data.'
    return Section('Costs', text, [table])


def speed_section(compared: Sequence[Compared], kept: Kept) -> Section:
    """Returns the time of a forward pass and the bytes kept for the backward pass."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    shape = input_shape(compared[0].cfg)
    machine = {k: v for k, v in describe(device).items() if k != 'date'}
    measured = kept.get(
        'speed',
        [[c.network() for c in compared], shape, machine],
        f'timing {len(compared)} networks at {shape[1]}x{shape[0]} (a minute or a few)',
        lambda: compare_configs([c.cfg for c in compared], shape, device),
    )
    rows = []
    for state, name in (('', 'forward pass, 1 image'), ('deployed_', 'the same, deployed')):
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
    memory = [_memory(m['memory'], measured[0]['memory']) for m in measured]
    rows.append(['kept for backward, backbone', *memory])
    where = machine.get('gpu') or f'{machine["cpu"]}, {machine["threads"]} threads'
    text = (
        f'Taken in turn, {ROUNDS} rounds, on {where}, torch {machine["torch"]}, at {shape[1]} x '
        f'{shape[0]} pixels: medians, and below them the ratio to the first column (not deployed) '
        f'with its quartiles. Deployed: norms folded, as tools/deploy.py does. Memory is counted, '
        f'not measured: the bytes that autograd keeps of one image between forward and backward '
        f'pass of the training backbone.'
    )
    return Section('Speed and memory', text, [Table(['', *(c.label for c in compared)], rows)])


def sample_images(compared: Sequence[Compared], named: Sequence[Path]) -> list[Path]:
    """Returns the images to look at: those that were named, or the test set's first.

    Raises:
        InputError: none were named, and there is no test set here.
    """
    if named:
        return list(named)
    found = files_of(build_dataset(compared[0].cfg.copy(), 'test'), SAMPLES)
    if not found:
        raise InputError('the test set names no files of images: name some with --images')
    return [Path(file) for file in found]


def heat_map_section(compared: Sequence[Compared], images: Sequence[Path], kept: Kept) -> Section:
    """Returns the heat maps of every network that has BNETs (figure 4)."""
    galleries, missing, plain = [], [], []
    for c in compared:
        try:
            galleries += _galleries(
                kept, 'heatmaps', f'heat maps of {c.label}', c, images, _heat_rows
            )
        except NoBNETError as error:
            plain.append(f'{c.label}: {error}')
        except InputError as error:
            missing.append(f'{c.label}: {error}')
    if not galleries:  # beside one that has BNET, that others have none is no news
        missing += plain
    text = (
        'For the last BNET of each stage: in how many channels the output at a position is above '
        'the line that fits output to input best. Bright is where BNET enhances most, in its own '
        'scale; plain batch norm is flat. The bright frame is the border, where kernels see zeros.'
    )
    return Section('Heat maps', text, galleries=galleries, missing=missing)


def attention_section(compared: Sequence[Compared], images: Sequence[Path], kept: Kept) -> Section:
    """Returns the attention maps of all networks (figure 5)."""
    of_models, missing = [], []
    for c in compared:
        what = f'attention maps of {c.label}'
        try:
            of_models.append(_galleries(kept, 'attention', what, c, images, _attention_rows))
        except InputError as error:
            missing.append(f'{c.label}: {error}')
    # Image by image, the networks below one another; of clips one can show more frames.
    by_image = zip_longest(*of_models)
    ordered = [gallery for of_image in by_image for gallery in of_image if gallery]
    text = (
        'The last block of each stage: evidence for the class that the network itself finds '
        '(Grad-CAM) or, of detectors, activation.'
    )
    return Section('Attention', text, galleries=ordered, missing=missing)


def errors_section(compared: Sequence[Compared], kept: Kept) -> Section:
    """Returns table 14 and figure 6 for the detectors, tested on their own test sets."""
    rows, missing = [], []
    for c in compared:
        try:
            found = kept.get(
                'errors',
                [c.mark(), file_mark(annotation_file(c.cfg))],
                f'testing {c.label} for its errors (as long as a test takes)',
                lambda c=c: _errors(c, kept),
            )
        except InputError as error:
            missing.append(f'{c.label}: {error}.')
        else:
            rows += [ErrorRow(c.label, *row) for row in found]
    tables, galleries = [], []
    for kind in dict.fromkeys(row.kind for row in rows):
        of_kind = [row for row in rows if row.kind == kind]
        table = error_table(of_kind, [row.name for row in of_kind]).transposed()
        tables.append(Table([f'{kind}, %', *table.columns[1:]], table.rows, '', table.caption))
        galleries.append(_error_figures(kind, of_kind))
    text = (
        'What AP50 loses to each kind of error, by TIDE (table 14), and which share of all errors '
        'each has (figure 6).'
    )
    return Section('Errors', text, tables, galleries, missing)


def _labels(compared: Sequence[Compared]) -> list[str]:
    return [c.label for c in compared]


def _seeds(compared: Compared) -> str:
    seeds = [run.seed for run in compared.group.runs]
    return ', '.join('not set' if seed is None else str(seed) for seed in seeds)


def _progress(compared: Compared) -> str:
    run = compared.group.runs[0]
    last = max(run.training)
    cfg = compared.cfg.get('train_cfg') or {}
    whole = cfg.get('max_epochs') if run.epochs else cfg.get('max_iters')
    done, unit = (run.epochs[last], 'epoch') if run.epochs else (last, 'iteration')
    return f'{unit} {done}' + (f' of {whole}' if whole else '')


def _batch(compared: Compared) -> str:
    size = (compared.cfg.get('train_dataloader') or {}).get('batch_size')
    return '-' if size is None else f'{size} a process'


def _iteration(compared: Compared) -> str:
    seconds = [s for run in compared.group.runs for s in run.seconds.values()]
    return f'{1000 * median(seconds):.0f} ms' if seconds else '-'


def _differences(compared: Sequence[Compared]) -> list[list[str]]:
    flat = [dict(_flattened(c.cfg.to_dict(), '')) for c in compared]
    names = [name for entries in flat for name in entries]
    rows = []
    for name in dict.fromkeys(names):
        cells = [entries.get(name, '-') for entries in flat]
        if len(set(cells)) > 1 and not name.startswith(UNTOLD):
            rows.append([name, *cells])
    return rows


def _flattened(node: object, name: str) -> Iterator[tuple[str, str]]:
    """Yields name and value of each entry; lists are taken whole."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _flattened(value, f'{name}.{key}' if name else str(key))
        return
    text = repr(node)
    yield name, text if len(text) <= LONGEST_ENTRY else f'{text[: LONGEST_ENTRY - 1]}…'


def _count(compared: Compared, shape: tuple[int, int]) -> dict:
    counted = asdict(config_costs(compared.group.runs[0].config, shape, None))
    return {**counted, 'paper': paper_row(compared.group.name)}


def _memory(value: int, first: int) -> str:
    text = f'{value / 2**20:.1f} MiB'
    return text if value == first or not first else f'{text}\n{value / first:.3f} times'


def _galleries(
    kept: Kept,
    name: str,
    what: str,
    c: Compared,
    images: Sequence[Path],
    rows_of: Callable[[Compared, Path], list[tuple[str, Row]]],
) -> list[Gallery]:
    """Returns a gallery for each image, made or kept from before."""
    for image in images:
        if not image.is_file():
            raise InputError(f'there is no image {image}')
    found = kept.get(
        name,
        [c.mark(), [[str(image), file_mark(image)] for image in images]],
        f'{what} (seconds)',
        lambda: [[name, _panels(row)] for image in images for name, row in rows_of(c, image)],
    )
    return [
        Gallery(f'{name}, {c.label} after {c.trained_for()}', [Figure(*p) for p in panels], True)
        for name, panels in found
    ]


def _heat_rows(c: Compared, image: Path) -> list[tuple[str, Row]]:
    model = c.pair.load()
    return heat_map_rows(model, image, Looking(chosen_layers(model)))


def _attention_rows(c: Compared, image: Path) -> list[tuple[str, Row]]:
    model, contents = load_model(c.cfg.copy(), c.checkpoint)
    return attention_rows(c.cfg, model, contents, image, Looking())


def _panels(row: Row) -> list[list[str]]:
    """Returns address and caption of the image and of each map."""
    return [
        [embed_image(no_longer_than(panel, LONGEST)), title.replace('\n', ', ')]
        for title, panel in row.panels()
    ]


def _errors(c: Compared, kept: Kept) -> list:
    cfg = deepcopy(c.cfg)
    truth = annotations_of(cfg)
    prefix = kept.folder / f'detections-{digest(c.mark())}'
    files, _ = detect(cfg, c.group.runs[0].config, str(c.checkpoint), prefix)
    rows = errors_of_detections(c.group.name, files, truth)
    return [[row.kind, row.values, row.paper, list(row.notes)] for row in rows]


def _error_figures(kind: str, rows: Sequence[ErrorRow]) -> Gallery:
    pies = []
    for row in rows:
        figure = Canvas(figsize=(3.2, 3.2), layout='constrained')
        draw_shares(figure.subplots(), row)
        figure.legend(
            handles=legend_of_shares(), loc='outside lower center', ncols=2, fontsize=8,
            frameon=False,
        )  # fmt: skip
        shares = [f'{name} {100 * share:.0f} %' for name, share in row.shares().items()]
        pies.append(Figure(embed_figure(figure), f'{row.name}, {kind}: {", ".join(shares)}'))
    costs = Canvas(figsize=(4.2, 3.4), layout='constrained')
    draw_costs(costs.subplots(), rows)
    return Gallery('', [*pies, Figure(embed_figure(costs), f'What each error costs, {kind}')])
