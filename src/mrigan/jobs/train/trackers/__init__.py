"""Experiment trackers that are told how a run goes: TensorBoard, MLflow, Weights & Biases."""
