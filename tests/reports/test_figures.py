"""Figures: titles that stay above their own panels."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bnet_mm.reports.figures import wrapped

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('inches', [0.8, 1.6, 2.1])
def test_titles_are_no_wider_than_their_panels(inches):
    figure = Figure(figsize=(9, 9), dpi=100)
    renderer = FigureCanvasAgg(figure).get_renderer()
    names = [path.stem for path in (ROOT / 'configs').glob('*.py')]
    assert len(names) > 50
    for title in (*names, 'layer1.1.bn2\n30 to 67 % of 2048 channels', 'traffic light, 46 %'):
        lines = wrapped(title, inches, 8)
        width = figure.text(0, 0, lines, fontsize=8).get_window_extent(renderer).width
        assert width <= 100 * inches, lines
        assert ''.join(lines.split()) == ''.join(title.split())  # nothing is lost
    assert wrapped('two\nlines', inches, 8) == 'two\nlines'
