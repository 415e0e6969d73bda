"""Mutation testing of the reference's pure modules: run.py, and survivors.toml, which explains what no test notices."""
