"""The report: trainings compared on one page that opens from disk without a network."""

from __future__ import annotations

from bnet_mm.reports.page.report import SECTIONS, write_report

__all__ = ['SECTIONS', 'write_report']
