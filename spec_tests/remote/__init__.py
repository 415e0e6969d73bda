"""Judging an implementation in its own process and interpreter."""
