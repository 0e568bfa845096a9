"""The commands: what was typed becomes settings, errors become one line and an exit status.

Nothing heavy is imported until a command needs it, so ``--help`` answers at once and the
allocator's settings are in place before torch is.
"""
