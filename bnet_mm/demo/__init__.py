"""Small drawn datasets in the layouts of the real ones, for a first run without any download."""

from bnet_mm.demo.cityscapes import write_cityscapes
from bnet_mm.demo.coco import write_coco
from bnet_mm.demo.imagenet import write_imagenet
from bnet_mm.demo.ucf101 import write_ucf101
from bnet_mm.demo.voc import write_voc

__all__ = ['write_cityscapes', 'write_coco', 'write_imagenet', 'write_ucf101', 'write_voc']
