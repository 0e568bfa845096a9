"""How far generated slices are from real ones, in numbers that need no trained network."""
