"""The findings there are, by their stable identifiers. Pure data.

Read by everything that finds; docs/findings has a page for each. Invariant: an identifier never changes its meaning.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]


class Kind(NamedTuple):
    """What findings of one identifier have in common."""

    title: str
    severity: Severity = "error"


CATALOG: dict[str, Kind] = {
    "FL001": Kind("there is no such Service"),
    "FL002": Kind("the Service is in another namespace"),
    "FL003": Kind("there is no such Service, but one with a name close by"),
    "FL004": Kind("there is no such namespace"),
    "FL005": Kind("the Service has no such port"),
    "FL006": Kind("the Service has that port with another protocol"),
    "FL007": Kind("there is no such client"),
    "FL008": Kind("the client pod does not run"),
    "FL010": Kind("the Service has no selector and nobody gave it endpoints"),
    "FL011": Kind("the selector matches no pods"),
    "FL012": Kind("pods match, but none is ready"),
    "FL013": Kind("the containers do not keep running"),
    "FL014": Kind("the pods are not scheduled"),
    "FL015": Kind("the containers can't be started"),
    "FL016": Kind("the named target port is in none of the pods"),
    "FL017": Kind("the EndpointSlices are behind the pods"),
    "FL018": Kind("some of the pods are not ready", "warning"),
    "FL019": Kind("an endpoint is the address of no pod"),
    "FL020": Kind("internalTrafficPolicy Local, and no endpoint on this node"),
    "FL021": Kind("externalTrafficPolicy Local, and no endpoint on this node"),
    "FL022": Kind("session affinity binds a client to one endpoint", "note"),
    "FL023": Kind("topology hints leave endpoints out", "note"),
    "FL024": Kind("the Service and its endpoints, or the client, are of different IP families"),
    "FL025": Kind("the proxy is told to ignore the Service"),
    "FL030": Kind("the Service is headless"),
    "FL031": Kind("the ExternalName does not resolve"),
    "FL032": Kind("the ExternalName is an IP address"),
    "FL033": Kind("the Service has no node port"),
    "FL034": Kind("node ports are not served at this address"),
    "FL035": Kind("the load balancer is pending"),
    "FL036": Kind("loadBalancerSourceRanges exclude the client"),
    "FL037": Kind("a cluster IP is not reached from outside"),
    "FL038": Kind("no node may answer for the load balancer's address"),
    "FL040": Kind("the cluster's DNS has no ready endpoints"),
    "FL041": Kind("the pod's resolv.conf names other name servers"),
    "FL042": Kind("the pod's dnsPolicy keeps it from the cluster's DNS"),
    "FL043": Kind("the name is not found by the search path"),
    "FL044": Kind("the DNS answers otherwise than the API says"),
    "FL045": Kind("the name server does not answer"),
    "FL046": Kind("the name resolves only outside of the cluster"),
    "FL047": Kind("the DNS can't resolve names outside of the cluster"),
    "FL048": Kind("the pod's ndots has the name asked as it is before the search path", "warning"),
    "FL050": Kind("the proxy's rules are missing"),
    "FL051": Kind("the proxy's rules are not those the Services ask for"),
    "FL052": Kind("somebody else's rule drops the packet"),
    "FL053": Kind("somebody else's rule translates the packet"),
    "FL054": Kind("rules of another proxy are present", "note"),
    "FL060": Kind("a node is not ready"),
    "FL061": Kind("a node's agent does not run"),
    "FL063": Kind("the API does not answer"),
    "FL064": Kind("a node has no link to other networks"),
    "FL065": Kind("there is no way to a node in another network"),
    "FL066": Kind("the address of a node in another network is not translated"),
    "FL067": Kind("the agent of a node in another network does not answer", "warning"),
    "FL070": Kind("there is no route"),
    "FL071": Kind("the node does not forward"),
    "FL072": Kind("packets between pods of one bridge pass connection tracking by"),
    "FL073": Kind("strict reverse path filtering", "warning"),
    "FL074": Kind("the bridge is missing or down"),
    "FL075": Kind("the pod's link to the bridge is missing, down or detached"),
    "FL076": Kind("the pod's own network is not as it should be"),
    "FL077": Kind("a pod that reaches itself needs hairpin mode"),
    "FL078": Kind("the links' MTUs differ", "warning"),
    "FL080": Kind("nothing listens on the target port"),
    "FL081": Kind("the process listens on 127.0.0.1 only"),
    "FL082": Kind("the process listens on another port"),
    "FL083": Kind("the process listens with another protocol"),
    "FL084": Kind("the process listens by IPv4 only"),
    "FL085": Kind("the process is stopped"),
    "FL086": Kind("the rules of a hostPort are missing"),
    "FL087": Kind("the hostPort is another pod's"),
    "FL088": Kind("a hostPort takes the node port"),
    "FL090": Kind("a stale connection tracking entry holds the client"),
    "FL091": Kind("connection tracking is full"),
    "FL095": Kind("the pod has no variables of the Service", "note"),
    "FL096": Kind("NetworkPolicies that nobody enforces", "warning"),
    "FL098": Kind("a NetworkPolicy does not allow it", "warning"),
    "FL100": Kind("an Ingress has no class that is served here"),
    "FL101": Kind("no Ingress has a rule for the host"),
    "FL102": Kind("no rule of the host takes the path"),
    "FL103": Kind("the Ingress' backend can't be served"),
    "FL104": Kind("the Secret of the Ingress is no certificate"),
    "FL105": Kind("nobody serves the Ingress"),
    "FL097": Kind("a real request went otherwise than predicted"),
}
