"""The cutoff guard: what was made here is in the mirror before the box ends."""
