"""Everything that knows mmengine: registration, norm_cfg, backbones; building and running models."""
