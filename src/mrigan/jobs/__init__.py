"""One module per command: builds the parts and decides what is saved when."""
