"""Every knob of the job, declared once; the only code that reads the environment."""
