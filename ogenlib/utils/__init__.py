"""What every layer stands on: files, JSON and tensors that are checked when they are opened, and locks.

Nothing here knows of models, images or hosts.
"""
