"""A training job on SageMaker: its request, its submission, its log and its outcome.

``request.build_request`` is arithmetic: no network, no clock, no chance. ``senders`` submit what it
returns, ``follow`` turns the platform's answers into events, ``outcome`` says what the end means.
"""
