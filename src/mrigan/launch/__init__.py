"""A training job on SageMaker: its request, its way there, and what becomes of it.

``request.build_request`` is arithmetic: no network, no clock, no chance. ``senders`` submit what it
returns, ``follow`` turns the platform's answers into events, ``outcome`` says what the end means.
"""
