"""Tests of the suite itself; they need no implementation and carry no clause."""
