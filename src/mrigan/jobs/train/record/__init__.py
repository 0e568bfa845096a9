"""What a run leaves behind: which rows, pictures and weights are saved when."""
