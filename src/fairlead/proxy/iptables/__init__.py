"""The iptables backend: service table → chains in kube-proxy's manner → diff → one restore.

In: entries of the service table. Out: chains KUBE-… in the tables filter and nat. Never: a rule of another name, but
for the jumps to ours in the built-in chains.
"""
