"""Programs for the kernel's BPF machine: written as instructions, run by the kernel, or by an interpreter for tests.

In: instructions and maps as values. Out: loaded maps and programs, attached to a control group for as long as the
process lives. Never: a pinned object, or anything that outlives its descriptors.
"""
