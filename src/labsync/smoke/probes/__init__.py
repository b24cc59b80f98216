"""Programs that run in the lab's own environment, never in labsync's.

`start.py` is started by its path; it loads this folder under a name of its own, so that nothing of
labsync has to be installed there and no probe stands in the way of a package of the same name.
They use the standard library, torch, the model's own library, and each other.
"""
