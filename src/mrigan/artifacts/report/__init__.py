"""report.html, one self-contained page about a run, and the model card beside it."""
