// The page: asks for /api/state once a second and draws what it says.
//
// Whatever comes from the mesh (names, paths, reasons) is put in as text and
// never as markup.

import { LABEL, NODE, keyOf, layout, scaleIn } from "./layout.js";

const EVERY_MS = 1000;
const HISTORY = 120;
const NODES_DRAWN = 80;
const OUTSIDE = "carrack-ingress";

const view = { state: null, paused: false, chosen: null, namespace: "", sort: { by: "rate", up: false }, box: null, moved: false, drawn: "", offset: 0 };
const history = new Map();
const $ = (id) => document.getElementById(id);

// --- small tools ---------------------------------------------------------

function element(space, tag, properties, children) {
  const made = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}
const html = (tag, properties, ...children) => element(null, tag, properties, children);
const svg = (tag, properties, ...children) => element("http://www.w3.org/2000/svg", tag, properties, children);

const idOf = (place) => `${place.namespace}/${place.service}`;
const edgeId = (edge) => `${idOf(edge.source)}\u0000${idOf(edge.destination)}\u0000${edge.protocol}`;
const nameOf = (place) => (place.service === OUTSIDE ? "outside" : place.service || "unknown");
const isOutside = (place) => place.service === OUTSIDE || place.namespace === "";

function perSecond(rate) {
  if (rate === 0) return "0/s";
  if (rate < 0.05) return "<0.1/s";
  if (rate < 100) return `${rate.toFixed(1)}/s`;
  return rate < 10000 ? `${Math.round(rate)}/s` : `${(rate / 1000).toFixed(1)}k/s`;
}
function percent(ratio) {
  if (ratio === 0) return "0 %";
  if (ratio < 0.001) return "<0.1 %";
  return ratio < 0.1 ? `${(ratio * 100).toFixed(1)} %` : `${Math.round(ratio * 100)} %`;
}
function millis(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
function bytes(count) {
  const units = ["B", "kB", "MB", "GB"];
  let at = 0;
  while (count >= 1000 && at < units.length - 1) { count /= 1000; at += 1; }
  return `${count < 10 && at > 0 ? count.toFixed(1) : Math.round(count)} ${units[at]}`;
}
function ago(when) {
  const seconds = Math.max(0, Math.round((Date.now() + view.offset - Date.parse(when)) / 1000));
  if (seconds < 2) return "now";
  if (seconds < 90) return `${seconds} s ago`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}
const lasting = (ms) => (ms < 90000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60000)} min`);
const clock = (when) => new Date(when).toLocaleTimeString(undefined, { hour12: false });

function health(rate, ratio) {
  if (rate === 0) return "idle";
  if (ratio === 0) return "well";
  return ratio < 0.05 ? "some" : "many";
}

// --- asking ---------------------------------------------------------------

async function ask() {
  try {
    const answer = await fetch("/api/state", { cache: "no-store" });
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    const state = await answer.json();
    view.offset = Date.parse(state.graph.at) - Date.now();
    remember(state.graph);
    if (!view.paused || view.state === null) view.state = state;
    tell(state.graph.proxy.answers ? null : `The node proxy does not answer (${state.graph.proxy.trouble}). What you see may be old.`, true);
  } catch (error) {
    tell(`The daemon does not answer (${error.message}). What you see is from ${view.state ? clock(view.state.graph.at) : "nowhere"}.`, false);
  }
  if (view.state !== null) draw();
  setTimeout(ask, EVERY_MS);
}

// What was before this page was opened.
async function askHistory() {
  try {
    const answer = await fetch("/api/history", { cache: "no-store" });
    if (!answer.ok) return;
    for (const edge of await answer.json()) history.set(edgeId(edge), edge.past.map((one) => ({ rate: one.rate, slow: one.p99_ms ?? 0 })));
  } catch { /* The page fills its charts from now on. */ }
}

function tell(trouble, answers) {
  $("trouble").hidden = trouble === null;
  $("trouble").textContent = trouble ?? "";
  const live = answers && !view.paused;
  $("live").className = `live ${live ? "on" : answers ? "" : "off"}`;
  $("live").textContent = live ? "live" : answers ? "paused" : "not connected";
}

function remember(graph) {
  for (const edge of graph.edges) {
    const id = edgeId(edge);
    const list = history.get(id) ?? [];
    list.push({ rate: edge.rate, slow: edge.p99_ms ?? 0 });
    if (list.length > HISTORY) list.shift();
    history.set(id, list);
  }
  const known = new Set(graph.edges.map(edgeId));
  for (const id of history.keys()) if (!known.has(id)) history.delete(id);
}

// --- drawing --------------------------------------------------------------

function draw() {
  const shown = visible();
  drawNamespaces();
  drawTotals(shown.edges);
  drawGraph(shown);
  drawDetail(shown);
  drawRefusals();
  drawCalls(shown.edges);
  drawRequests();
  $("window").textContent = `last ${Math.round(view.state.graph.window_ms / 1000)} s`;
}

function visible() {
  const wanted = (place) => view.namespace === "" || place.namespace === view.namespace;
  const edges = view.state.graph.edges.filter((edge) => wanted(edge.source) || wanted(edge.destination));
  const ends = new Set(edges.flatMap((edge) => [idOf(edge.source), idOf(edge.destination)]));
  return { edges, nodes: view.state.graph.nodes.filter((node) => ends.has(idOf(node))) };
}

const namespaces = () => [...new Set(view.state.graph.nodes.map((node) => node.namespace))].filter((name) => name !== "").sort();

function drawNamespaces() {
  const select = $("namespace"), names = namespaces();
  if (select.dataset.names === names.join()) return;
  select.dataset.names = names.join();
  select.replaceChildren(html("option", { value: "" }, "all"), ...names.map((name) => html("option", { value: name, selected: name === view.namespace ? "" : null }, name)));
}

function drawTotals(edges) {
  const requests = edges.filter((edge) => edge.protocol !== "tcp");
  const rate = sum(requests, (edge) => edge.rate);
  const failed = sum(requests, (edge) => edge.rate * edge.error_ratio);
  const ratio = rate > 0 ? failed / rate : 0;
  const slow = Math.max(0, ...requests.map((edge) => edge.p99_ms ?? 0));
  const tcp = edges.filter((edge) => edge.protocol === "tcp");
  const open = tcp.some((edge) => edge.open !== null && edge.open !== undefined);
  $("total-requests").textContent = perSecond(rate);
  $("total-errors").textContent = percent(ratio);
  $("total-errors").className = health(rate, ratio);
  $("total-p99").textContent = slow > 0 ? millis(slow) : "–";
  $("total-connections").textContent = open ? `${sum(tcp, (edge) => edge.open ?? 0)} open` : perSecond(sum(tcp, (edge) => edge.rate));
}
const sum = (list, of) => list.reduce((total, one) => total + of(one), 0);

// More than this many boxes are no picture any more; the table has them all.
function busiest(nodes) {
  if (nodes.length <= NODES_DRAWN) return nodes;
  return [...nodes].sort((a, b) => b.rate_in + b.rate_out - a.rate_in - a.rate_out).slice(0, NODES_DRAWN);
}

// One drawn line for all protocols between two services.
function lines(edges) {
  const found = new Map();
  for (const edge of edges) {
    const line = { source: idOf(edge.source), destination: idOf(edge.destination) };
    const key = keyOf(line);
    if (!found.has(key)) found.set(key, { ...line, key, edges: [] });
    found.get(key).edges.push(edge);
  }
  return [...found.values()];
}

function drawGraph({ nodes: all, edges: every }) {
  const nodes = busiest(all), kept = new Set(nodes.map(idOf));
  const edges = every.filter((edge) => kept.has(idOf(edge.source)) && kept.has(idOf(edge.destination)));
  const drawn = lines(edges);
  $("left-out").textContent = nodes.length < all.length ? `the ${nodes.length} busiest of ${all.length}; choose a project for more` : "";
  $("empty").hidden = nodes.length > 0;
  if (nodes.length === 0) { $("graph").replaceChildren(); view.drawn = ""; return; }
  const frame = room();
  const shape = JSON.stringify([nodes.map(idOf), drawn.map((line) => line.key), frame]);
  if (shape !== view.drawn) {
    view.drawn = shape;
    view.places = layout(nodes.map(idOf), drawn, frame);
    $("graph").replaceChildren(svg("g", { id: "edges" }), svg("g", { id: "nodes" }), svg("g", { id: "labels" }));
    if (!view.moved) fit();
  }
  const many = namespaces().length > 1;
  update($("edges"), drawn, (line) => line.key, drawLine);
  update($("labels"), drawn, (line) => line.key, drawLabel);
  update($("nodes"), nodes, idOf, (node) => drawNode(node, many));
  markChosen(drawn);
}

// Draws each item anew only when what it shows has changed, so that hovering and
// animations are not disturbed.
function update(parent, items, idOfItem, drawItem) {
  const present = new Map([...parent.children].map((child) => [child.dataset.id, child]));
  items.forEach((item) => {
    const fresh = drawItem(item), old = present.get(idOfItem(item));
    fresh.dataset.id = idOfItem(item);
    fresh.dataset.shows = [fresh.textContent, fresh.getAttribute("class"), fresh.dataset.width].join();
    if (!old) parent.append(fresh);
    else if (old.dataset.shows !== fresh.dataset.shows) old.replaceWith(fresh);
  });
}

function drawNode(node, withNamespace) {
  const { x, y } = view.places.nodes.get(idOf(node));
  const [w, h] = [NODE.width, NODE.height];
  const quiet = node.rate_in === 0 && node.rate_out === 0;
  const state = quiet ? "idle" : node.rate_in === 0 ? "well" : health(node.rate_in, node.error_ratio);
  const outside = isOutside(node);
  const sub = node.service === OUTSIDE ? `published ports of ${node.namespace}` : node.namespace === "" && node.service !== "external" ? "no identity" : withNamespace ? node.namespace : null;
  const flow = node.rate_in > 0 ? [`${perSecond(node.rate_in)} in · `, svg("tspan", { class: "bad" }, `${percent(node.error_ratio)} errors`)] : node.rate_out > 0 ? [`${perSecond(node.rate_out)} out`] : ["idle"];
  const choose = () => select({ node: idOf(node) });
  return svg("g", { class: `node ${state}${outside ? " outside" : ""}`, transform: `translate(${x},${y})`, tabindex: 0, role: "button", "aria-label": `${nameOf(node)}, ${perSecond(node.rate_in)} in, ${percent(node.error_ratio)} errors`, onclick: choose, onkeydown: onEnter(choose) },
    svg("rect", { class: "box", x: -w / 2, y: -h / 2, width: w, height: h, rx: 11 }),
    svg("rect", { class: "bar", x: -w / 2 + 8, y: -h / 2 + 12, width: 4, height: h - 24, rx: 2 }),
    svg("text", { class: "name", x: -w / 2 + 22, y: sub ? -9 : -3 }, clipped(nameOf(node), 18)),
    sub ? svg("text", { class: "sub", x: -w / 2 + 22, y: 7 }, clipped(sub, 25)) : null,
    svg("text", { class: "sub", x: -w / 2 + 22, y: sub ? 23 : 16 }, ...flow));
}
const clipped = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
const onEnter = (act) => (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); } };

function flowOf(line) {
  const rate = sum(line.edges, (edge) => edge.rate);
  const ratio = rate > 0 ? sum(line.edges, (edge) => edge.rate * edge.error_ratio) / rate : 0;
  const open = sum(line.edges, (edge) => edge.open ?? 0);
  const flowing = rate > 0 || sum(line.edges, (edge) => edge.bytes_per_second ?? 0) > 0;
  return { rate, ratio, open, flowing, state: flowing || open > 0 ? health(1, ratio) : "idle" };
}

function drawLine(line) {
  const { path, head } = view.places.edges.get(line.key);
  const { rate, flowing, state } = flowOf(line);
  const width = flowing ? Math.min(6.5, 2 + Math.log10(1 + rate) * 1.5) : 2;
  return svg("g", { class: `edge ${state}`, "data-width": width.toFixed(1), onclick: () => select({ line: line.key }) },
    svg("path", { class: "line", d: path, "stroke-width": width.toFixed(1) }),
    svg("path", { class: "flow", d: path, "stroke-width": Math.max(1.4, width * 0.42).toFixed(1), "data-speed": speed(rate) }),
    svg("path", { class: "head", d: "M0,0 L-12,-6.5 L-9.5,0 L-12,6.5 Z", transform: `translate(${head.x},${head.y}) rotate(${head.angle})` }),
    svg("path", { class: "hit", d: path }));
}

function drawLabel(line) {
  const { label } = view.places.edges.get(line.key);
  const { rate, ratio, open, state } = flowOf(line);
  const [first, second] = words(line.edges, rate, ratio, open);
  const choose = () => select({ line: line.key });
  const tall = second === null ? 22 : LABEL.height - 2;
  return svg("g", { class: `edge ${state}`, transform: `translate(${label.x},${label.y})`, tabindex: 0, role: "button", "aria-label": `${line.source} calls ${line.destination}`, onclick: choose, onkeydown: onEnter(choose) },
    svg("g", { class: "label" },
      svg("rect", { x: -LABEL.width / 2, y: -tall / 2, width: LABEL.width, height: tall }),
      svg("text", { class: "first", y: second === null ? 4 : -3 }, ...first),
      second === null ? null : svg("text", { y: 13 }, second)));
}
const speed = (rate) => (rate > 50 ? "fast" : rate > 5 ? "even" : "slow");

// The two lines of an edge's label.
function words(edges, rate, ratio, open) {
  const requests = edges.filter((edge) => edge.protocol !== "tcp");
  const data = sum(edges, (edge) => edge.bytes_per_second ?? 0);
  if (rate === 0 && open === 0 && data === 0) return [[`idle ${lasting(Math.min(...edges.map((edge) => edge.idle_ms)))}`], null];
  const errors = ratio > 0 ? [" · ", svg("tspan", { class: "bad" }, `▲ ${percent(ratio)}`)] : [];
  if (requests.length === 0) {
    const first = open > 0 ? `tcp · ${open} open` : rate > 0 ? `tcp · ${perSecond(rate)}` : "tcp";
    return [[first, ...errors], `${bytes(data)}/s`];
  }
  const busiest = requests.reduce((a, b) => (b.rate > a.rate ? b : a));
  return [[perSecond(rate), ...errors], `p50 ${millis(busiest.p50_ms)} · p99 ${millis(busiest.p99_ms)}`];
}

function select(chosen) {
  const same = JSON.stringify(chosen) === JSON.stringify(view.chosen);
  view.chosen = same ? null : chosen;
  draw();
}

function isNear(line) {
  if (!view.chosen) return true;
  if (view.chosen.line) return line.key === view.chosen.line;
  return line.source === view.chosen.node || line.destination === view.chosen.node;
}

function markChosen(drawn) {
  const near = drawn.filter(isNear);
  const ends = new Set(near.flatMap((line) => [line.source, line.destination]));
  if (view.chosen?.node) ends.add(view.chosen.node);
  const keys = new Set(near.map((line) => line.key));
  $("graph").classList.toggle("choosing", view.chosen !== null);
  for (const g of [...$("edges").children, ...$("labels").children]) { g.classList.toggle("near", keys.has(g.dataset.id)); g.classList.toggle("chosen", g.dataset.id === view.chosen?.line); }
  for (const g of $("nodes").children) { g.classList.toggle("near", ends.has(g.dataset.id)); g.classList.toggle("chosen", g.dataset.id === view.chosen?.node); }
}

// --- pan and zoom ---------------------------------------------------------

// The most room the graph may take; it takes only as much height as it fills.
const room = () => ({ width: Math.round($("graph").getBoundingClientRect().width), height: Math.round(Math.max(340, Math.min(760, innerHeight * 0.62))) });

function fit() {
  const { left, right, top, bottom } = view.places.bounds;
  const scale = scaleIn(room(), view.places.bounds);
  document.querySelector(".canvas").style.height = `${Math.max(300, Math.round((bottom - top) * scale))}px`;
  const frame = $("graph").getBoundingClientRect();
  const [w, h] = [frame.width / scale, frame.height / scale];
  view.box = { x: (left + right) / 2 - w / 2, y: (top + bottom) / 2 - h / 2, w, h };
  look();
}
const look = () => $("graph").setAttribute("viewBox", `${view.box.x} ${view.box.y} ${view.box.w} ${view.box.h}`);

function moveAndZoom() {
  const graph = $("graph");
  let from = null;
  const unit = () => view.box.w / graph.getBoundingClientRect().width;
  graph.addEventListener("pointerdown", (event) => { from = { x: event.clientX, y: event.clientY, far: false }; });
  graph.addEventListener("pointermove", (event) => {
    if (!from || !view.box) return;
    const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
    if (!from.far && Math.hypot(dx, dy) < 4) return;
    if (!from.far) graph.setPointerCapture(event.pointerId);
    view.box.x -= dx * unit(); view.box.y -= dy * unit();
    from = { x: event.clientX, y: event.clientY, far: true };
    view.moved = true; graph.classList.add("dragging"); look();
  });
  const end = () => { from = null; graph.classList.remove("dragging"); };
  graph.addEventListener("pointerup", end);
  graph.addEventListener("pointercancel", end);
  graph.addEventListener("wheel", (event) => {
    if (!view.box || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    const frame = graph.getBoundingClientRect(), by = Math.exp(event.deltaY * 0.002);
    const [fx, fy] = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
    view.box.x += view.box.w * fx * (1 - by); view.box.y += view.box.h * fy * (1 - by);
    view.box.w *= by; view.box.h *= by; view.moved = true; look();
  }, { passive: false });
}

// --- what was chosen ------------------------------------------------------

function drawDetail({ edges }) {
  const panel = $("detail");
  const mine = view.chosen ? edges.filter((edge) => isNear({ key: keyOf({ source: idOf(edge.source), destination: idOf(edge.destination) }), source: idOf(edge.source), destination: idOf(edge.destination) })) : [];
  panel.hidden = mine.length === 0;
  if (panel.hidden) return;
  const [first] = mine;
  $("detail-title").textContent = view.chosen.line ? `${nameOf(first.source)} → ${nameOf(first.destination)}` : nameOf([first.source, first.destination].find((place) => idOf(place) === view.chosen.node));
  $("detail-body").replaceChildren(...mine.map((edge) => drawEdgeDetail(edge, view.chosen.line === undefined)));
}

function drawEdgeDetail(edge, named) {
  const past = history.get(edgeId(edge)) ?? [];
  const tcp = edge.protocol === "tcp";
  const facts = tcp
    ? [["connections", edge.open ? `${edge.open} open` : perSecond(edge.rate)], ["data", `${bytes(edge.bytes_per_second ?? 0)}/s`], ["seen", `${edge.total}`]]
    : [["rate", perSecond(edge.rate)], ["errors", percent(edge.error_ratio)], ["seen", `${edge.total}`], ["p50", millis(edge.p50_ms)], ["p90", millis(edge.p90_ms)], ["p99", millis(edge.p99_ms)]];
  const codes = Object.entries(edge.codes).map(([code, rate]) => html("span", { class: code === "-" ? (tcp ? "" : "bad") : Number(code) >= 400 ? "bad" : "" }, `${code === "-" ? (tcp ? "ended" : "no answer") : code}  ${perSecond(rate)}`));
  return html("div", {},
    html("p", { class: "chart-name" }, html("b", {}, named ? `${nameOf(edge.source)} → ${nameOf(edge.destination)}` : edge.protocol), html("span", {}, named ? edge.protocol : "")),
    html("dl", { class: "facts" }, facts.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value)))),
    chart(past.map((one) => one.rate), "rate", "rate", perSecond),
    tcp ? null : chart(past.map((one) => one.slow), "slow", "p99", millis),
    html("div", { class: "codes" }, codes));
}

function chart(values, kind, name, format) {
  const top = Math.max(...values, 0);
  return html("div", {},
    html("p", { class: "chart-name" }, html("span", {}, `${name}, last ${values.length} s`), html("span", {}, `up to ${format(top)}`)),
    svg("svg", { class: "chart", viewBox: `0 0 ${HISTORY - 1} 50`, preserveAspectRatio: "none", role: "img", "aria-label": `${name} over time` }, ...shape(values, kind, 50)));
}

function shape(values, kind, height) {
  const top = Math.max(...values, 0) || 1;
  const start = HISTORY - values.length;
  const points = values.map((value, at) => `${start + at},${(height - 2 - (value / top) * (height - 5)).toFixed(1)}`);
  if (points.length < 2) return [];
  return [svg("polygon", { class: kind, points: `${start},${height} ${points.join(" ")} ${HISTORY - 1},${height}` }), svg("polyline", { class: kind, points: points.join(" ") })];
}

// --- lists ----------------------------------------------------------------

const concerns = (record) => view.namespace === "" || record.source.namespace === view.namespace || record.destination.namespace === view.namespace;

function drawRefusals() {
  const groups = new Map();
  for (const record of view.state.refusals.filter(concerns)) {
    const like = JSON.stringify([idOf(record.source), idOf(record.destination), record.method, record.path, record.port, record.decision?.policy, record.decision?.place]);
    if (!groups.has(like)) groups.set(like, []);
    groups.get(like).push(record);
  }
  const all = [...groups.values()];
  $("refusals-empty").hidden = all.length > 0;
  $("refusals-count").textContent = all.length > 0 ? `${sum(all, (group) => group.length)} lately` : "";
  $("refusals").replaceChildren(...all.slice(0, 20).map(drawRefusal));
}

function drawRefusal(records) {
  const [record] = records, decision = record.decision;
  const at = decision?.place ? `${decision.place.file}:${decision.place.line}:${decision.place.column}` : null;
  const command = `carrack why ${record.id}`;
  return html("li", {},
    html("div", { class: "refusal-head" }, html("span", { class: "who" }, `${nameOf(record.source)} → ${nameOf(record.destination)}`), records.length > 1 ? html("span", { class: "times" }, `×${records.length}`) : null, html("time", { datetime: record.at, title: record.at }, ago(record.at))),
    html("div", { class: "what" }, asked(record)),
    html("div", { class: "policy" }, html("b", {}, decision?.policy ?? "no policy"), decision?.action ? html("span", { class: "action" }, decision.action) : null, html("div", {}, decision?.summary ?? record.reason ?? "refused"), at ? html("div", { class: "at" }, at) : null),
    decision?.evidence?.length ? html("ul", { class: "evidence" }, decision.evidence.slice(0, 4).map((one) => drawEvidence(one, decision.action))) : null,
    html("div", { class: "why" }, html("code", {}, command), html("button", { type: "button", onclick: copy(command) }, "Copy")));
}

function drawEvidence(one, action) {
  const field = one.field.split(".").at(-1);
  const value = one.value === "" ? "nothing" : one.value;
  // An ALLOW refuses by what did not match, a DENY by what did.
  const decisive = one.matched === (action === "DENY");
  return html("li", { class: decisive ? "yes" : "no" }, one.matched ? "✓ " : "✗ ", `${field} `, html("code", {}, one.pattern), one.matched ? " matched " : " did not match ", html("code", {}, value));
}

function copy(text) {
  return async (event) => {
    const button = event.currentTarget;
    try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; } catch { button.textContent = "Not allowed"; }
    setTimeout(() => { button.textContent = "Copy"; }, 1200);
  };
}

const asked = (record) => (record.method ? `${record.method} ${record.path ?? ""}` : `${record.protocol} to port ${record.port}`);

function drawCalls(edges) {
  const { by, up } = view.sort;
  const value = (edge) => (by === "source" || by === "destination" ? idOf(edge[by]) : edge[by] ?? -1);
  const sorted = [...edges].sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : edgeId(a) < edgeId(b) ? -1 : 1) * (up ? 1 : -1));
  for (const th of document.querySelectorAll("#calls th[data-sort]")) { th.classList.toggle("sorted", th.dataset.sort === by); th.classList.toggle("up", up); th.setAttribute("aria-sort", th.dataset.sort === by ? (up ? "ascending" : "descending") : "none"); }
  const shape = sorted.map(drawCall);
  document.querySelector("#calls tbody").replaceChildren(...shape);
  $("calls-note").textContent = edges.length === 0 ? "none" : `${edges.length}, busiest first unless you sort`;
}

function drawCall(edge) {
  const state = health(edge.rate, edge.error_ratio);
  const key = keyOf({ source: idOf(edge.source), destination: idOf(edge.destination) });
  const place = (of) => [html("span", { class: "namespace" }, of.namespace === "" ? "" : `${of.namespace}/`), nameOf(of)];
  const tcp = edge.protocol === "tcp";
  return html("tr", { class: `${state === "idle" && !edge.open ? "idle" : ""}${view.chosen?.line === key ? " chosen" : ""}`, onclick: () => select({ line: key }) },
    html("td", {}, place(edge.source)), html("td", {}, place(edge.destination)),
    html("td", {}, tcp && edge.open ? `tcp, ${edge.open} open` : edge.protocol),
    html("td", { class: "number" }, tcp && edge.rate === 0 ? `${bytes(edge.bytes_per_second ?? 0)}/s` : perSecond(edge.rate)),
    html("td", { class: `number ${state}` }, edge.rate > 0 ? percent(edge.error_ratio) : "–"),
    html("td", { class: "number" }, millis(edge.p50_ms)), html("td", { class: "number" }, millis(edge.p90_ms)), html("td", { class: "number" }, millis(edge.p99_ms)),
    html("td", { class: "spark" }, svg("svg", { viewBox: `0 0 ${HISTORY - 1} 26`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...shape((history.get(edgeId(edge)) ?? []).map((one) => one.rate), "rate", 26))));
}

function drawRequests() {
  const once = view.state.records.filter(concerns).filter((record) => record.reporter === "source" || record.source.namespace === "");
  document.querySelector("#requests tbody").replaceChildren(...once.slice(0, 40).map((record) => {
    const bad = record.outcome !== "answered" || (record.status ?? 0) >= 400;
    return html("tr", {},
      html("td", {}, clock(record.at)), html("td", {}, nameOf(record.source)), html("td", {}, nameOf(record.destination)),
      html("td", { class: "request", title: record.reason ?? "" }, asked(record)),
      html("td", { class: `number ${bad ? ((record.status ?? 500) >= 500 || record.outcome !== "answered" ? "many" : "some") : ""}` }, record.status ?? (record.outcome === "answered" ? "–" : record.outcome)),
      html("td", { class: "number" }, millis(record.duration_us / 1000)),
      html("td", { class: "trace", title: record.trace_id ?? "" }, (record.trace_id ?? "").slice(0, 12)));
  }));
}

// --- wishes of whoever looks ----------------------------------------------

function theme(next) {
  const name = next ?? localStorage.getItem("theme") ?? "auto";
  if (name === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
  $("theme").textContent = `Theme: ${name}`;
  return name;
}

function start() {
  const asked = new URLSearchParams(location.search);
  theme(["auto", "light", "dark"].includes(asked.get("theme")) ? asked.get("theme") : undefined);
  view.namespace = asked.get("project") ?? "";
  view.chosen = asked.has("service") ? { node: asked.get("service") } : null;
  $("theme").addEventListener("click", () => { const all = ["auto", "light", "dark"]; theme(all[(all.indexOf(theme()) + 1) % 3]); });
  $("pause").addEventListener("click", () => { view.paused = !view.paused; $("pause").setAttribute("aria-pressed", view.paused); $("pause").textContent = view.paused ? "Resume" : "Pause"; });
  $("namespace").addEventListener("change", (event) => { view.namespace = event.target.value; view.chosen = null; view.moved = false; draw(); });
  $("fit").addEventListener("click", () => { view.moved = false; if (view.places) fit(); });
  $("detail-close").addEventListener("click", () => select(view.chosen));
  for (const th of document.querySelectorAll("#calls th[data-sort]")) th.addEventListener("click", () => { view.sort = { by: th.dataset.sort, up: view.sort.by === th.dataset.sort ? !view.sort.up : ["source", "destination", "protocol"].includes(th.dataset.sort) }; draw(); });
  addEventListener("resize", () => { if (view.state) draw(); });
  addEventListener("keydown", (event) => { if (event.key === "Escape" && view.chosen) select(view.chosen); });
  moveAndZoom();
  askHistory().then(ask);
}

start();
