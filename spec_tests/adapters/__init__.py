"""Implementations of parts of the contract that ship with the suite."""
