"""A released research code base of 2021 in small: MEND with a mask for each language.

Written here, in habits of the field other than those of `third_party`: settings and captured values in global
variables, hooks on the layers that are edited, a trainer class, everything in float32, and one table for all masks.
`nox -s anywhere` runs it under Python 3.8, torch 1.8 and transformers 4.6.
"""
