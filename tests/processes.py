"""Real processes that tests start, signal and listen to."""


def follow(process, text, nth=1):
    """Read what ``process`` says until the ``nth`` line that has ``text``; return all of it."""
    said = ""
    for line in process.stdout:
        said += line
        nth -= text in line
        if nth == 0:
            return said
    raise AssertionError(f"{text!r} was not said so often: {said}{process.stderr.read()}")
