"""Seconds and memory: training steps, and large pools of image-text pairs."""
