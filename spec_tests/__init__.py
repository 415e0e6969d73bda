"""The executable specification: clauses, contract, tests and the tests of the tests."""
