"""A compact reference implementation of cross-lingual model editing (LiME, ACL Findings 2023)."""

__version__ = "0.1.0"
