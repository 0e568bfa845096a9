"""Where objects live: the only code that talks to S3.

``store.open_store`` is the door. Behind it are obstore for the data, boto3 for credentials,
endpoint and what obstore can't express, and one table that turns failures into one line.

Not fork-safe: obstore's threads do not survive ``fork``, and a child that touches a store hangs.
Start workers by spawn or forkserver, or hand them bytes.
"""
