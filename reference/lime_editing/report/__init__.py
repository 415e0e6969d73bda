"""Tables, figures and a page from stored cells. This package never loads torch."""
