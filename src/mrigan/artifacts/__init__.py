"""What a run leaves for people: grids, plots, the report, and their publication."""
