"""Robust fine-tuning: rates, shifts, new names and the cost of a step."""
