"""Everything that knows mmengine: registration, norm_cfg, backbones; builds and runs models."""
