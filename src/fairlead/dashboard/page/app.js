// The live graph: what the server tells is kept here, and only what changed is drawn again.
import { openPanel, refreshPanel, closePanel, showEvents } from "./panel.js";

const SHOWN = 8; // endpoints of a service, until all are asked for
const ROW = 36; // px of an endpoint's line: its chip and the gap
const SAMPLES = 30;
const by = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

export const state = { services: new Map(), pods: new Map(), nodes: [], namespaces: [], events: [], rates: new Map() };
const lanes = new Map(); // key → its elements
const expanded = new Set();
let counts = null; // the last traffic, to tell new connections from old ones

export function make(tag, kind = "", text = "", parent = null) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text !== "") made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function draw(tag, attributes, parent) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent.append(made);
  return made;
}

// -- what is known --------------------------------------------------------------------------------------------------

export function health(service) {
  if (service.type === "ExternalName") return "alias";
  const ready = service.endpoints.filter((e) => e.state === "ready").length;
  if (!ready) return "bad";
  return service.endpoints.some((e) => e.state === "unready") ? "partly" : "ok";
}

function matches(key, service) {
  const namespace = by("namespace").value;
  if (namespace && service.namespace !== namespace) return false;
  if (by("problems").checked && !["bad", "partly"].includes(health(service))) return false;
  const words = by("search").value.trim().toLowerCase();
  if (!words) return true;
  const said = [key, service.type, service.external, ...service.ips, ...service.ports.map((p) => `${p.name} ${p.port} ${p.nodePort}`),
    ...service.endpoints.map((e) => `${e.address} ${e.pod} ${e.node}`)].join(" ").toLowerCase();
  return words.split(/\s+/).every((word) => said.includes(word));
}

function order(a, b) {
  const [x, y] = [state.services.get(a), state.services.get(b)];
  return x.namespace.localeCompare(y.namespace) || x.name.localeCompare(y.name);
}

// -- one service ------------------------------------------------------------------------------------------------------

function lane(key) {
  const row = make("li", "lane");
  const card = make("button", "service", "", row);
  card.type = "button";
  card.dataset.key = key;
  card.tabIndex = -1;
  card.setAttribute("aria-expanded", "false");
  card.setAttribute("aria-controls", "panel");
  const head = make("span", "head", "", card);
  const parts = { row, card, name: make("span", "name", "", head), space: make("span", "space", "", head), mark: make("span", "mark", "", head) };
  parts.meta = make("span", "meta", "", card);
  parts.rate = make("span", "rate", "", card);
  parts.spark = draw("svg", { class: "spark", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" }, parts.rate);
  parts.line = draw("polyline", { points: "" }, parts.spark);
  parts.perSecond = make("span", "", "", parts.rate);
  parts.edges = draw("svg", { class: "edges", "aria-hidden": "true", preserveAspectRatio: "none" }, row);
  parts.endpoints = make("ul", "endpoints", "", row);
  parts.chips = new Map();
  parts.spark.style.display = "none";
  return parts;
}

const WORDS = { ok: "✓", partly: "!", bad: "✗" };

function update(key) {
  const service = state.services.get(key);
  let parts = lanes.get(key);
  if (!service) {
    if (parts) {
      const had = parts.row.contains(document.activeElement);
      const next = parts.row.nextElementSibling || parts.row.previousElementSibling;
      parts.row.remove();
      lanes.delete(key);
      if (had && next) focusCard(next.querySelector(".service"));
    }
    return;
  }
  if (!parts) {
    parts = lane(key);
    lanes.set(key, parts);
  }
  const ready = service.endpoints.filter((e) => e.state === "ready").length;
  const kind = health(service);
  parts.card.className = `service ${kind}`;
  parts.name.textContent = service.name;
  parts.space.textContent = service.namespace;
  parts.mark.textContent = kind === "alias" ? "" : `${WORDS[kind]} ${ready}/${service.endpoints.length}`;
  const ports = service.ports.map((p) => `${p.port}/${p.protocol.toLowerCase()}${p.nodePort ? `:${p.nodePort}` : ""}`).join(" ");
  parts.meta.textContent = [service.type, service.ips[0] || service.external, ports].filter(Boolean).join(" · ");
  const told = kind === "alias" ? `another name for ${service.external}` : `${ready} of ${service.endpoints.length} endpoints ready`;
  parts.card.setAttribute("aria-label", `${service.name} in ${service.namespace}, ${service.type}, ${told}`);
  drawEndpoints(key, service, parts);
  parts.row.hidden = !matches(key, service);
}

function drawEndpoints(key, service, parts) {
  const all = service.endpoints;
  const shown = expanded.has(key) || all.length <= SHOWN + 1 ? all : all.slice(0, SHOWN);
  const focused = parts.endpoints.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  parts.endpoints.replaceChildren();
  parts.edges.replaceChildren();
  parts.chips.clear();
  const rows = [];
  for (const endpoint of shown) {
    const pod = endpoint.pod.split("/").pop();
    const button = chip(parts.endpoints, endpoint.state, pod || endpoint.address, endpoint.pod ? { pod: endpoint.pod } : { key });
    button.dataset.id = endpoint.address;
    if (endpoint.node) make("span", "node", endpoint.node, button);
    const passing = make("span", "passing", "", button);
    const ports = endpoint.ports.length ? `:${endpoint.ports.join(",")}` : "";
    make("span", "at", (endpoint.address.includes(":") ? `[${endpoint.address}]` : endpoint.address) + ports, button);
    button.setAttribute("aria-label", `endpoint ${pod || endpoint.address}, ${endpoint.state}${endpoint.node ? `, on ${endpoint.node}` : ""}, ${endpoint.address}`);
    rows.push(endpoint.state);
    parts.chips.set(endpoint.address, { passing, edge: null });
  }
  if (shown.length < all.length) {
    const more = chip(parts.endpoints, "more", `and ${all.length - shown.length} more`, { expand: key });
    more.dataset.id = "more";
    rows.push("more");
  }
  if (!all.length) {
    const kind = health(service) === "alias" ? "alias" : "missing";
    chip(parts.endpoints, kind, kind === "alias" ? service.external : "no endpoints", { key });
    rows.push(kind);
  }
  const height = Math.max(70, rows.length * ROW - 6);
  parts.edges.setAttribute("viewBox", `0 0 100 ${height}`);
  parts.edges.style.height = `${height}px`;
  const addresses = [...parts.chips.keys()];
  rows.forEach((kind, number) => {
    const y = number * ROW + 15;
    const edge = draw("path", { d: `M0 34C55 34 45 ${y} 100 ${y}`, class: kind }, parts.edges);
    if (number < addresses.length) parts.chips.get(addresses[number]).edge = edge;
  });
  if (focused) [...parts.endpoints.querySelectorAll(".chip")].find((c) => c.dataset.id === focused)?.focus();
  drawTraffic(key);
}

function chip(list, kind, text, data) {
  const item = make("li", "", "", list);
  const button = make("button", `chip ${kind}`, "", item);
  button.type = "button";
  button.tabIndex = -1;
  Object.assign(button.dataset, data);
  make("span", "pod", text, button);
  return button;
}

// -- traffic ----------------------------------------------------------------------------------------------------------

function perSecond(rate) {
  if (rate < 0.05) return "0/s";
  return rate >= 9.95 ? `${Math.round(rate)}/s` : `${rate.toFixed(1)}/s`;
}

function takeTraffic(told) {
  const unseen = by("unseen");
  unseen.hidden = !told.unseen?.length;
  unseen.textContent = unseen.hidden ? "" : `Traffic is not seen everywhere: ${told.unseen.join("; ")}`;
  if (!told.counts) return;
  if (counts && told.time > counts.time) {
    const seconds = told.time - counts.time;
    const touched = new Set([...state.rates.keys(), ...Object.keys(told.counts)]);
    for (const key of touched) {
      const known = state.rates.get(key) || { total: 0, samples: [], endpoints: new Map() };
      known.endpoints.clear();
      known.total = 0;
      for (const [address, [total]] of Object.entries(told.counts[key] || {})) {
        const before = counts.counts[key]?.[address]?.[0] ?? 0;
        const rate = Math.max(0, total - before) / seconds;
        if (rate > 0) known.endpoints.set(address, rate);
        known.total += rate;
      }
      known.samples.push(known.total);
      if (known.samples.length > SAMPLES) known.samples.shift();
      if (known.samples.some((each) => each > 0)) state.rates.set(key, known);
      else state.rates.delete(key);
      drawTraffic(key);
    }
    drawTiles();
  }
  counts = told;
}

function drawTraffic(key) {
  const parts = lanes.get(key);
  if (!parts) return;
  const rates = state.rates.get(key);
  parts.perSecond.textContent = rates ? `${perSecond(rates.total)} new connections` : "";
  parts.spark.style.display = rates ? "" : "none";
  if (rates) {
    const top = Math.max(...rates.samples, 0.1);
    const start = SAMPLES - rates.samples.length;
    parts.line.setAttribute("points", rates.samples.map((s, i) => `${((start + i) * 100) / (SAMPLES - 1)},${(19 - (17 * s) / top).toFixed(1)}`).join(" "));
  }
  for (const [address, { passing, edge }] of parts.chips) {
    const rate = rates?.endpoints.get(address) || 0;
    passing.textContent = rate ? perSecond(rate) : "";
    edge.classList.toggle("busy", rate > 0);
    edge.style.strokeWidth = rate ? `${Math.min(6, 1.6 + Math.log2(1 + rate) * 0.7)}px` : "";
  }
}

// -- the whole --------------------------------------------------------------------------------------------------------

function drawTiles() {
  const namespace = by("namespace").value;
  const services = [...state.services.values()].filter((s) => !namespace || s.namespace === namespace);
  const endpoints = services.flatMap((s) => s.endpoints);
  const pods = [...state.pods.values()].filter((p) => !namespace || p.namespace === namespace);
  const bad = services.filter((s) => health(s) === "bad").length;
  const ready = endpoints.filter((e) => e.state === "ready").length;
  const running = pods.filter((p) => p.ready).length;
  const awake = state.nodes.filter((n) => n.ready).length;
  let rate = 0;
  for (const [key, known] of state.rates) if (!namespace || key.startsWith(`${namespace}/`)) rate += known.total;
  const wanted = pods.filter((p) => !["Succeeded", "Failed"].includes(p.phase)).length;
  const tiles = [
    ["Services", services.length, bad ? `${bad} without a ready endpoint` : "", bad ? "bad" : ""],
    ["Endpoints ready", ready, `of ${endpoints.length}`, ready < endpoints.length ? "warn" : ""],
    ["Pods ready", running, `of ${wanted}`, running < wanted ? "warn" : ""],
    ["Nodes ready", awake, `of ${state.nodes.length}`, awake < state.nodes.length ? "bad" : ""],
    ["New connections", perSecond(rate), "", ""],
  ];
  by("tiles").replaceChildren(...tiles.map(([name, value, more, kind]) => {
    const tile = make("div", `tile ${kind}`);
    make("dt", "", name, tile);
    const shown = make("dd", "", `${value} `, tile);
    if (more) make("small", "", more, shown);
    return tile;
  }));
}

function filter() {
  for (const [key, parts] of lanes) parts.row.hidden = !matches(key, state.services.get(key));
  settle();
}

function settle() {
  const visible = [...lanes.values()].filter((parts) => !parts.row.hidden);
  const none = by("none");
  none.hidden = visible.length > 0;
  none.textContent = state.services.size ? "No service matches." : "There are no services.";
  const cards = [...by("services").querySelectorAll(".lane:not([hidden]) .service")];
  if (!cards.some((card) => card.tabIndex === 0) && cards.length) cards[0].tabIndex = 0;
  drawTiles();
  showEvents();
}

function place(key) {
  const row = lanes.get(key)?.row;
  if (!row || row.isConnected) return;
  const list = by("services");
  let [low, high] = [0, list.children.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (order(list.children[middle].querySelector(".service").dataset.key, key) < 0) low = middle + 1;
    else high = middle;
  }
  list.insertBefore(row, list.children[low] || null);
}

function drawNamespaces() {
  const select = by("namespace");
  const chosen = select.value;
  const options = ["", ...state.namespaces].map((name) => {
    const option = make("option", "", name || "all");
    option.value = name;
    return option;
  });
  select.replaceChildren(...options);
  select.value = state.namespaces.includes(chosen) ? chosen : "";
}

async function takeSnapshot(told) {
  by("cluster").textContent = told.cluster || "";
  document.title = told.cluster ? `${told.cluster} · fairlead` : "fairlead";
  state.services = new Map(Object.entries(told.services));
  state.pods = new Map(Object.entries(told.pods));
  Object.assign(state, { nodes: told.nodes, namespaces: told.namespaces, events: told.events });
  counts = null;
  for (const key of [...lanes.keys()]) if (!state.services.has(key)) update(key);
  drawNamespaces();
  let number = 0;
  for (const key of [...state.services.keys()].sort(order)) {
    update(key);
    place(key);
    if (++number % 150 === 0) await new Promise((go) => setTimeout(go));
  }
  takeTraffic(told.traffic || {});
  settle();
  refreshPanel();
}

function takeChange(told) {
  if (told.nodes) state.nodes = told.nodes;
  if (told.namespaces) {
    state.namespaces = told.namespaces;
    drawNamespaces();
  }
  for (const [key, pod] of Object.entries(told.pods || {})) pod ? state.pods.set(key, pod) : state.pods.delete(key);
  for (const [key, service] of Object.entries(told.services || {})) {
    service ? state.services.set(key, service) : state.services.delete(key);
    update(key);
    place(key);
  }
  if (told.events) {
    const fresh = new Set(told.events.map((e) => e.id));
    state.events = [...state.events.filter((e) => !fresh.has(e.id)), ...told.events].slice(-200);
  }
  settle();
  refreshPanel();
}

// -- keys and clicks ----------------------------------------------------------------------------------------------------

function focusCard(card) {
  if (!card) return;
  for (const each of by("services").querySelectorAll(".service[tabindex='0']")) each.tabIndex = -1;
  card.tabIndex = 0;
  card.focus();
}

function neighbour(row, step) {
  let next = row;
  do next = step > 0 ? next.nextElementSibling : next.previousElementSibling;
  while (next?.hidden);
  return next?.querySelector(".service");
}

by("services").addEventListener("keydown", (event) => {
  const row = event.target.closest(".lane");
  if (!row) return;
  const chips = [...row.querySelectorAll(".chip")];
  const at = chips.indexOf(event.target);
  const cards = () => by("services").querySelectorAll(".lane:not([hidden]) .service");
  const moves = {
    ArrowDown: () => (at >= 0 && chips[at + 1] ? chips[at + 1].focus() : focusCard(neighbour(row, 1))),
    ArrowUp: () => (at > 0 ? chips[at - 1].focus() : at === 0 ? focusCard(row.querySelector(".service")) : focusCard(neighbour(row, -1))),
    ArrowRight: () => at < 0 && chips[0]?.focus(),
    ArrowLeft: () => focusCard(row.querySelector(".service")),
    Home: () => focusCard(cards()[0]),
    End: () => focusCard([...cards()].pop()),
  };
  if (moves[event.key]) {
    event.preventDefault();
    moves[event.key]();
  }
});

by("services").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.expand) {
    expanded.add(button.dataset.expand);
    update(button.dataset.expand);
    lanes.get(button.dataset.expand).endpoints.querySelectorAll(".chip")[SHOWN]?.focus();
  } else openPanel(button.dataset.pod ? { pod: button.dataset.pod } : { service: button.dataset.key }, button);
});

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) {
    event.preventDefault();
    by("search").focus();
  } else if (event.key === "Escape") closePanel();
});
for (const id of ["namespace", "problems"]) by(id).addEventListener("change", filter);
by("search").addEventListener("input", filter);
document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());

// -- the stream -----------------------------------------------------------------------------------------------------

function live(text, waiting) {
  const shown = by("live");
  if (shown.textContent !== text) shown.textContent = text;
  shown.classList.toggle("waiting", waiting);
}

let busy = Promise.resolve(); // a snapshot is drawn in parts: what comes meanwhile waits
const source = new EventSource("api/stream");
const listen = (kind, take) => source.addEventListener(kind, (event) => {
  busy = busy.then(() => take(JSON.parse(event.data))).catch(console.error);
});
listen("snapshot", async (told) => {
  await takeSnapshot(told);
  live("live", false);
});
listen("change", takeChange);
listen("traffic", takeTraffic);
source.onerror = () => live(source.readyState === EventSource.CLOSED ? "ended: start fairlead dashboard again" : "reconnecting", true);
