"""The ablation, and scripts that run the main job."""
