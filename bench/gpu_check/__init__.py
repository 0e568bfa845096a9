"""The sections of ``bench/gpu.py``, each in a file of its own."""
