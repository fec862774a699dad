"""Tensors on the disk, whatever trained them: found, described, loaded strictly."""
