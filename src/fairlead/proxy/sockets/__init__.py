"""The accelerator for sockets of pods: connect() to a virtual IP goes to an endpoint, with no translation on the way.

In: entries of the service table. Out: BPF maps, and programs on the control group of this node's pods. Never: a
connection that the rules would treat otherwise; what cannot be done exactly is left to them.
"""
