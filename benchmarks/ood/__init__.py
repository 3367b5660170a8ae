"""Detectors of unknown classes."""
