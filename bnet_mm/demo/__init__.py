"""Small drawn datasets in the layouts of the real ones, for a first run without any download."""

from __future__ import annotations

from bnet_mm.demo.layouts import (
    write_cityscapes,
    write_coco,
    write_imagenet,
    write_ucf101,
    write_voc,
)

__all__ = ['write_cityscapes', 'write_coco', 'write_imagenet', 'write_ucf101', 'write_voc']
