"""Batch jobs: many subgraphs, shapes and targets worked through by many workers, killed and resumed at will.

``job`` reads the TOML file, ``ledger`` keeps what is done in the store, ``executor`` says what a set of workers is
(``local`` and ``on_ray`` are two), ``work`` is what a worker does with one task, and ``driver`` puts them together.
"""
