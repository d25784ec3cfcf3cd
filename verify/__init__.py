"""Is it the same function: the proof, the numerical contract, and the certificate that records both.

``verify.equivalence`` proves (gate 1), ``verify.numerics`` measures rounding against eager (gate 3),
``verify.certificate`` keeps the evidence. Numerics and inputs import torch, so nothing is imported here.
"""
