"""Lets a whole training run in float64: in float32 rounding moves some gradients by percents.

For a config's `custom_imports`, before the model is built.
"""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

torch.set_default_dtype(torch.float64)


@HOOKS.register_module()
class Float64InputHook(Hook):
    """Hands the backbone its inputs in float64; preprocessors make float32 of them."""

    def before_run(self, runner):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.backbone.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
