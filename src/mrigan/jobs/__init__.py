"""A module or a folder per command: builds the parts and decides what is saved when."""
