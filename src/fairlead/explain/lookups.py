"""`explain dns NAME`: which names a pod's resolver tries, who answers, and what. Pure."""

from __future__ import annotations

from fairlead.explain import names, path
from fairlead.explain.evidence import Evidence
from fairlead.explain.question import Origin, Question
from fairlead.explain.report import Hop, Report


def explain(evidence: Evidence, question: Question) -> Report:
    """What the name means to that pod."""
    start, hop = Hop("client"), Hop("name")
    hops = (start, hop)
    answer = ""
    if evidence.api_problem:
        start.find("FL063", evidence.api_problem, "fairlead status")
        return Report(question=str(question), hops=(start,), unseen=evidence.unseen)
    client = path.find_client(evidence, question.origin or Origin("outside"), start)
    if client is None or client.resolver is None:
        return Report(question=str(question), hops=(start,), unseen=evidence.unseen)
    looked = names.examine(evidence, client.resolver, question.name, hop, question.family or "IPv4")
    if looked.down and not hop.broken:
        path.why_no_answer(evidence, client, hop)
    elif any(f.id == "FL044" for f in hop.findings):
        path.why_wrong(evidence, client, hop)
    elif looked.answer is None and not hop.broken and hop.state != "unseen":
        hop.find("FL043", f"no name server knows {question.name}", "see the names tried, and their answers")
    if looked.answer is not None:
        said = ", ".join(looked.answer.addresses) or looked.answer.alias
        answer = f"{question.name} is {looked.answer.name} → {said}"
        domain = evidence.facts.domain
        if not looked.answer.name.rstrip(".").endswith(domain) and question.name.rstrip(".").endswith(domain):
            hop.find("FL046", f"{question.name} was answered outside of {domain}", severity="warning")
    return Report(question=str(question), hops=hops, unseen=evidence.unseen, answer=answer)
