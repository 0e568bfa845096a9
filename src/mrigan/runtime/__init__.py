"""What the process runs on: device, memory allocator, signals, the platform's files."""
