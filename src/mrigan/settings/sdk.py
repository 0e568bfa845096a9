"""What the sagemaker SDK reads from the environment, which only settings may touch."""

import os


def skip_role_simulation() -> None:
    """Keep ModelTrainer from simulating the role's policy, unless the user wants it to.

    It refuses a role that has no more than a job needs: https://github.com/aws/sagemaker-python-sdk/issues/6019
    """
    os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")
