"""Where objects live: the only code that talks to S3.

Other code calls ``store.open_store``. Behind it, obstore moves the data, boto3 finds credentials
and the endpoint and does what obstore can't, and one table turns each failure into one line.

Not fork-safe: obstore's threads do not survive ``fork``, and a child that uses a store hangs. Start
workers by spawn or forkserver, or give them bytes.
"""
