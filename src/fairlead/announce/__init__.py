"""Who answers on the LAN for the load balancers' addresses: one node each, by ARP and NDP.

In: the snapshot (which Services have which address, which nodes and endpoints there are) and what other nodes' beats
claim. Out: answers to ARP requests and neighbor solicitations, and a word to everybody when an address moves. Never:
an address on a link, a rule, a write to the API but Events; what happens to the packets is the proxy's.
"""
