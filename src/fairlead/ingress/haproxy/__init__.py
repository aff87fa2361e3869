"""The route table as an HAProxy: its configuration as text (pure), and the process that runs it.

In: a RouteTable, and the places of its servers. Out: a configuration, maps, certificate lists, and the commands that
take a running HAProxy from one to the next. Never: a configuration in use that `haproxy -c` did not pass.
"""
