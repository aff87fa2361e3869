// The side: what one service or pod is, `explain` on it, and the events.
import { state, make, health } from "./app.js";

const by = (id) => document.getElementById(id);
const MARKS = { ok: "✓", broken: "✗", partly: "✗", warning: "!", unseen: "?", skipped: "–" };
const STATES = { ok: "", broken: "broken here", partly: "broken for some", warning: "with a warning", unseen: "not seen", skipped: "left out" };
let shown = null; // {service} or {pod}
let opener = null;
let asked = 0; // only the last question's answer counts

export function openPanel(what, from) {
  document.querySelector(".service[aria-expanded=true]")?.setAttribute("aria-expanded", "false");
  shown = what;
  opener = from;
  from.closest(".lane")?.querySelector(".service").setAttribute("aria-expanded", "true");
  by("panel").hidden = false;
  by("panel").scrollTop = 0;
  by("hops").replaceChildren();
  by("verdict").replaceChildren();
  by("ask").hidden = Boolean(what.pod);
  by("via").value = "";
  refreshPanel();
  by("from").value = what.service ? origin(state.services.get(what.service)) : "";
  by("panel-title").focus();
  ask();
  showEvents();
}

export function closePanel() {
  if (!shown) return;
  shown = null;
  asked += 1;
  by("panel").hidden = true;
  document.querySelector(".service[aria-expanded=true]")?.setAttribute("aria-expanded", "false");
  if (opener?.isConnected) opener.focus();
  showEvents();
}

// A pod that is a client and no endpoint, of the service's own namespace if there is one.
function origin(service) {
  const mine = new Set(service.endpoints.map((e) => e.pod));
  const running = [...state.pods.entries()].filter(([, p]) => p.phase === "Running" && p.ip);
  const here = running.filter(([, p]) => p.namespace === service.namespace);
  const found = here.find(([key]) => !mine.has(key)) || here[0];
  if (found) return `pod/${found[1].name}.${found[1].namespace}`;
  return state.nodes.length ? `node/${state.nodes[0].name}` : "outside";
}

export function refreshPanel() {
  if (!shown) return;
  const facts = [];
  if (shown.service) {
    const service = state.services.get(shown.service);
    if (!service) {
      by("panel-title").textContent = `${shown.service} is gone`;
      by("facts").replaceChildren();
      return;
    }
    by("panel-title").textContent = `${service.name} in ${service.namespace}`;
    const ready = service.endpoints.filter((e) => e.state === "ready").length;
    facts.push(["Type", service.type], ["Addresses", [...service.ips, service.external].filter(Boolean).join(", ") || "none"]);
    facts.push(["Ports", service.ports.map((p) => `${p.name ? `${p.name} ` : ""}${p.port}/${p.protocol.toLowerCase()}${p.nodePort ? `, node port ${p.nodePort}` : ""}`).join("; ") || "none"]);
    if (health(service) !== "alias") facts.push(["Endpoints", `${ready} of ${service.endpoints.length} ready`]);
    if (service.policies.length) facts.push(["Policies", service.policies.join(", ")]);
    fillOrigins(service.namespace);
  } else {
    const pod = state.pods.get(shown.pod);
    by("panel-title").textContent = pod ? `pod ${pod.name} in ${pod.namespace}` : `pod ${shown.pod} is gone`;
    if (pod) {
      facts.push(["State", `${pod.reason || pod.phase}${pod.ready ? ", ready" : ", not ready"}`], ["Node", pod.node || "none"], ["Address", pod.ip || "none"]);
      if (pod.restarts) facts.push(["Restarts", String(pod.restarts)]);
    }
  }
  by("facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
}

function fillOrigins(namespace) {
  const pods = [...state.pods.values()].filter((p) => p.phase === "Running" && p.ip);
  pods.sort((a, b) => (b.namespace === namespace) - (a.namespace === namespace) || a.name.localeCompare(b.name));
  const names = ["outside", ...state.nodes.map((n) => `node/${n.name}`), ...pods.slice(0, 200).map((p) => `pod/${p.name}.${p.namespace}`)];
  const list = by("origins");
  if (list.dataset.names === names.join()) return;
  list.dataset.names = names.join();
  list.replaceChildren(...names.map((name) => {
    const option = make("option");
    option.value = name;
    return option;
  }));
}

// -- explain ----------------------------------------------------------------------------------------------------------

async function ask() {
  if (!shown) return;
  const mine = (asked += 1);
  const [namespace, name] = (shown.service || shown.pod).split("/");
  const question = { target: `${shown.service ? "svc" : "pod"}/${name}.${namespace}`, namespace };
  if (shown.service) Object.assign(question, { from: by("from").value.trim(), via: by("via").value });
  else question.from = `pod/${name}.${namespace}`;
  const button = by("ask").querySelector("button");
  button.disabled = true;
  const verdict = by("verdict");
  verdict.className = "verdict";
  verdict.textContent = "looking …";
  by("hops").replaceChildren();
  let report;
  try {
    report = await post("api/explain", question);
  } catch (error) {
    report = { error: `the server does not answer: ${error.message}` };
  }
  if (mine !== asked) return;
  button.disabled = false;
  if (report.error) {
    verdict.classList.add("broken");
    verdict.textContent = report.error;
    return;
  }
  verdict.classList.add(report.works ? "works" : "broken");
  verdict.textContent = `${report.works ? "✓" : "✗"} ${report.verdict}`;
  const findings = new Map(report.findings.map((f) => [`${f.id} ${f.text}`, f]));
  by("hops").replaceChildren(...report.hops.map((hop, number) => drawHop(hop, number + 1, [...findings.values()])));
  for (const each of report.unseen) make("li", "hop unseen", `not seen: ${each}`, by("hops"));
}

// Once more if the browser gave up: it does when the machine's network changes, and questions change nothing.
async function post(path, body, again = 3) {
  try {
    const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    return await answer.json();
  } catch (error) {
    if (!again) throw error;
    await new Promise((go) => setTimeout(go, 300));
    return post(path, body, again - 1);
  }
}

function drawHop(hop, number, findings) {
  const item = make("li", `hop ${hop.state}`);
  const dot = make("span", "dot", MARKS[hop.state], item);
  dot.setAttribute("aria-hidden", "true");
  const title = make("h3", "", `${number} ${hop.name}`, item);
  if (STATES[hop.state]) make("small", "", STATES[hop.state], title);
  for (const finding of findings.filter((f) => hop.findings.includes(f.id))) {
    const line = make("p", `finding ${finding.severity}`, "", item);
    make("b", "", `${finding.id} `, line);
    line.append(finding.text);
    if (finding.remedy) make("span", "remedy", `→ ${finding.remedy}`, line);
  }
  if (hop.evidence.length) {
    const details = make("details", "", "", item);
    details.open = hop.evidence.length <= 3 || hop.findings.length > 0;
    make("summary", "", `${hop.evidence.length} ${hop.evidence.length > 1 ? "things" : "thing"} seen`, details);
    make("pre", "", hop.evidence.join("\n"), details);
  }
  return item;
}

by("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
by("close").addEventListener("click", closePanel);

// -- events -----------------------------------------------------------------------------------------------------------

function ago(seconds) {
  const past = Math.max(0, Date.now() / 1000 - seconds);
  if (past < 60) return `${Math.floor(past)} s`;
  return past < 3600 ? `${Math.floor(past / 60)} min` : `${Math.floor(past / 3600)} h`;
}

let drawn = "";

export function showEvents() {
  const namespace = by("namespace").value;
  const events = state.events.filter((e) => !namespace || e.namespace === namespace).slice(-60).reverse();
  const now = events.map((e) => `${e.id}${e.count}${ago(e.time)}`).join();
  if (now === drawn) return;
  drawn = now;
  by("events-count").textContent = events.length ? "" : "none lately";
  by("events").replaceChildren(...events.map((event) => {
    const item = make("li", `event ${event.type}`);
    const when = make("span", "when", ago(event.time), item);
    when.title = new Date(event.time * 1000).toLocaleString();
    make("b", "", event.reason, item);
    item.append(" ");
    make("span", "about", `${event.about}${namespace ? "" : ` in ${event.namespace}`}${event.count > 1 ? ` ×${event.count}` : ""}`, item);
    make("div", "", event.message, item);
    return item;
  }));
}

setInterval(showEvents, 5000);
