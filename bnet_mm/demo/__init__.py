"""Small drawn datasets in the layouts of the real ones, for a first run without any download."""

from bnet_mm.demo.coco import write_coco

__all__ = ['write_coco']
