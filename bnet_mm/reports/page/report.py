"""Gathers the sections, one after the other, and writes the page."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import torch

from bnet_mm.checkpoint.atomic import check_writable
from bnet_mm.errors import InputError
from bnet_mm.reports.page import sections as made_by
from bnet_mm.reports.page.compared import Compared, read_compared
from bnet_mm.reports.page.kept import Kept
from bnet_mm.reports.page.page import Section, write_page
from bnet_mm.version import __version__

# In the order of the page; those that take time can be left out.
SECTIONS = ('configs', 'metrics', 'curves', 'costs', 'speed', 'heatmaps', 'attention', 'errors')
TITLES = {'speed': 'Speed and memory', 'heatmaps': 'Heat maps'}


def write_report(
    runs: Sequence[str | Path],
    file: Path,
    configs: Path,
    folder: Path,
    images: Sequence[Path] = (),
    skip: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> None:
    """Writes one page that compares trainings, and opens without a network.

    What takes long is kept in a folder as soon as it is done; the same call goes on from there. A
    section that cannot be made here says why in its place.

    Args:
        runs: work dirs; the first one's config is what the others are compared with.
        file: the page.
        configs: the folder of this package's configs, whose metafiles hold the paper's figures.
        folder: of the kept results.
        images: images or videos to look at; the first ones of the test set by default.
        skip: sections to leave out.
        say: is told what is being done.

    Raises:
        InputError: a run cannot be read, or the page cannot be written.
    """
    check_writable(file)
    compared = read_compared(runs)
    kept = Kept(folder, say)

    def shown() -> list[Path]:
        return made_by.sample_images(compared, images)

    makers: dict[str, Callable[[], Section]] = {
        'configs': lambda: made_by.configs_section(compared),
        'metrics': lambda: made_by.metrics_section(compared, configs),
        'curves': lambda: made_by.curves_section(compared),
        'costs': lambda: made_by.costs_section(compared, kept),
        'speed': lambda: made_by.speed_section(compared, kept),
        'heatmaps': lambda: made_by.heat_map_section(
            compared, made_by.sample_images(compared, images), kept
        ),
        'attention': lambda: made_by.attention_section(
            compared, made_by.sample_images(compared, images), kept
        ),
        'errors': lambda: made_by.errors_section(compared, kept),
    }
    wanted = [name for name in SECTIONS if name not in skip]
    if not any(_may_detect(c) for c in compared):
        wanted = [name for name in wanted if name != 'errors']
    sections = []
    for number, name in enumerate(wanted, 1):
        say(f'{number}/{len(wanted)} {name}')
        title = TITLES.get(name, name.capitalize())
        try:
            sections.append(makers[name]())
        except InputError as error:
            sections.append(Section(title, '', missing=[f'Left out: {error}.']))
        except Exception as error:  # one section's failure does not cost the others
            say(traceback.format_exc())
            reason = f'Left out, since it failed: {type(error).__name__}: {error}'
            sections.append(Section(title, '', missing=[reason]))
    title = ' and '.join(c.label for c in compared)
    made = f'{date.today().isoformat()}, bnet_mm {__version__}, torch {torch.__version__}'
    facts = [f'Made {made} from {len(runs)} work dir{"s" if len(runs) > 1 else ""}.']
    write_page(f'{title} compared' if len(compared) > 1 else title, facts, sections, file)


def _may_detect(c: Compared) -> bool:
    try:
        return c.cfg.get('default_scope') == 'mmdet'
    except InputError:  # which the sections say, each in its place
        return True
