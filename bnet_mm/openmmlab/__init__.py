"""What knows mmengine: registration, norm_cfg, backbones, building, loading and running models."""
