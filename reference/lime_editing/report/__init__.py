"""Tables, figures and a page from stored cells. Nothing here loads torch."""
