"""Where objects live: the only code that talks to S3."""
