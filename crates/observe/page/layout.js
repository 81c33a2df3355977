// Where nodes stand and how edges run: layers from left to right or from top to
// bottom, whichever shows the graph larger in the frame it gets.
//
//   nodes: [id], edges: [{source, destination}], frame ─▶ { nodes: Map id → {x, y}, edges: Map key → {path, head, label} }
//
// Pure: the same graph in the same frame is always drawn the same way. Edges that
// close a circle are turned around for the layering and drawn in their own
// direction. Inside, `u` runs along the flow and `v` across it.

export const NODE = { width: 184, height: 62 };
export const LABEL = { width: 172, height: 40 };
const MARGIN = 28;

const RIGHT = { name: "right", along: NODE.width, across: NODE.height, gap: LABEL.width + 56, row: 44, lane: LABEL.height, slips: [0, -26, 26, -46, 46], xy: (u, v) => ({ x: u, y: v }), angle: 0 };
const DOWN = { name: "down", along: NODE.height, across: NODE.width, gap: LABEL.height + 84, row: 54, lane: LABEL.width, slips: [0, -20, 20, -40, 40, -66, 66, -90, 90], xy: (u, v) => ({ x: v, y: u }), angle: 90 };

export const keyOf = (edge) => `${edge.source}\u0000${edge.destination}`;

export function layout(nodes, edges, frame) {
  const between = edges.filter((edge) => edge.source !== edge.destination);
  const forward = withoutCircles(nodes, between);
  const layerOf = layers(nodes, forward);
  const { rows, chains } = withLanes(nodes, forward, layerOf);
  order(rows, chains);
  const [right, down] = [RIGHT, DOWN].map((way) => laidOut(way, nodes, edges, forward, rows, chains));
  return scaleIn(frame, down.bounds) > 1.1 * scaleIn(frame, right.bounds) ? down : right;
}

export function scaleIn(frame, bounds) {
  return Math.min(1.2, frame.width / (bounds.right - bounds.left), frame.height / (bounds.bottom - bounds.top));
}

function laidOut(way, nodes, edges, forward, rows, chains) {
  const places = place(way, rows, chains);
  const at = (id) => way.xy(places.get(id).u, places.get(id).v);
  const found = { nodes: new Map(nodes.map((id) => [id, at(id)])), edges: routes(way, edges, forward, chains, places) };
  const boxes = [...found.nodes.values()].map((p) => box(p.x, p.y, NODE.width, NODE.height));
  boxes.push(...[...found.edges.values()].map((edge) => box(edge.label.x, edge.label.y, LABEL.width, LABEL.height)));
  const edge = (side, pick) => pick(...boxes.map((one) => one[side]));
  found.bounds = { left: edge("left", Math.min) - MARGIN, right: edge("right", Math.max) + MARGIN, top: edge("top", Math.min) - MARGIN, bottom: edge("bottom", Math.max) + MARGIN };
  return found;
}

// Turns around every edge that leads back to where the walk came from.
function withoutCircles(nodes, edges) {
  const out = group(edges, (edge) => edge.source);
  const state = new Map();
  const forward = [];
  const visit = (id) => {
    state.set(id, "open");
    for (const edge of out.get(id) ?? []) {
      const turned = state.get(edge.destination) === "open";
      forward.push(turned ? { key: keyOf(edge), from: edge.destination, to: edge.source, turned } : { key: keyOf(edge), from: edge.source, to: edge.destination, turned });
      if (!state.has(edge.destination)) visit(edge.destination);
    }
    state.set(id, "done");
  };
  const called = new Set(edges.map((edge) => edge.destination));
  for (const id of nodes.filter((id) => !called.has(id))) if (!state.has(id)) visit(id);
  for (const id of nodes) if (!state.has(id)) visit(id);
  return forward;
}

// Each node one layer right of the last that calls it.
function layers(nodes, forward) {
  const into = group(forward, (edge) => edge.to);
  const found = new Map();
  const layer = (id) => {
    if (!found.has(id)) {
      found.set(id, 0);
      found.set(id, Math.max(-1, ...(into.get(id) ?? []).map((edge) => layer(edge.from))) + 1);
    }
    return found.get(id);
  };
  nodes.forEach(layer);
  // A caller nobody calls stands next to what it calls, not at the far left.
  const out = group(forward, (edge) => edge.from);
  for (const id of nodes) {
    const next = (out.get(id) ?? []).map((edge) => found.get(edge.to));
    if (!into.has(id) && next.length > 0) found.set(id, Math.min(...next) - 1);
  }
  return found;
}

// Gives an edge that passes a layer a lane of its own there.
function withLanes(nodes, forward, layerOf) {
  const rows = [];
  const put = (layer, item) => (rows[layer] ??= []).push(item);
  nodes.forEach((id) => put(layerOf.get(id), { id, lane: false }));
  const chains = new Map();
  for (const edge of forward) {
    const chain = [edge.from];
    for (let layer = layerOf.get(edge.from) + 1; layer < layerOf.get(edge.to); layer += 1) {
      const id = `${edge.key}\u0000${layer}`;
      put(layer, { id, lane: true });
      chain.push(id);
    }
    chain.push(edge.to);
    chains.set(edge.key, chain);
  }
  return { rows: rows.map((row) => row ?? []), chains };
}

// Orders each layer by where its neighbors stand, back and forth.
function order(rows, chains) {
  const left = new Map(), right = new Map();
  const add = (map, id, other) => map.set(id, [...(map.get(id) ?? []), other]);
  for (const chain of chains.values()) {
    for (let at = 1; at < chain.length; at += 1) {
      add(left, chain[at], chain[at - 1]);
      add(right, chain[at - 1], chain[at]);
    }
  }
  const index = new Map();
  const number = (row) => row.forEach((item, at) => index.set(item.id, at - (row.length - 1) / 2));
  rows.forEach(number);
  const sweep = (row, near) => {
    const middle = (item) => mean((near.get(item.id) ?? []).map((id) => index.get(id))) ?? index.get(item.id);
    const wished = new Map(row.map((item) => [item.id, middle(item)]));
    row.sort((a, b) => wished.get(a.id) - wished.get(b.id));
    number(row);
  };
  for (let round = 0; round < 6; round += 1) {
    rows.forEach((row) => sweep(row, left));
    [...rows].reverse().forEach((row) => sweep(row, right));
  }
}

function place(way, rows, chains) {
  const size = (item) => (item.lane ? way.lane : way.across);
  const places = new Map();
  // How far from the start of its row each item stands when all stand close.
  const close = rows.map((row) => {
    let v = 0;
    return row.map((item) => { const at = v + size(item) / 2; v += size(item) + way.row; return at; });
  });
  rows.forEach((row, layer) => row.forEach((item, at) => {
    const middle = (close[layer][0] + close[layer].at(-1)) / 2;
    places.set(item.id, { u: layer * (way.along + way.gap), v: close[layer][at] - middle, lane: item.lane });
  }));
  straighten(rows, chains, close, places);
  return places;
}

// Moves each item toward those it is joined with, keeping order and distance.
function straighten(rows, chains, close, places) {
  const joined = new Map();
  const join = (a, b) => joined.set(a, [...(joined.get(a) ?? []), b]);
  for (const chain of chains.values()) for (let at = 1; at < chain.length; at += 1) { join(chain[at], chain[at - 1]); join(chain[at - 1], chain[at]); }
  const settle = (layer) => {
    const row = rows[layer];
    const wished = row.map((item, at) => (mean((joined.get(item.id) ?? []).map((id) => places.get(id).v)) ?? places.get(item.id).v) - close[layer][at]);
    rising(wished).forEach((v, at) => { places.get(row[at].id).v = v + close[layer][at]; });
  };
  for (let round = 0; round < 8; round += 1) {
    for (let layer = 0; layer < rows.length; layer += 1) settle(layer);
    for (let layer = rows.length - 1; layer >= 0; layer -= 1) settle(layer);
  }
}

// The values nearest to `wished` of which none is less than the one before it.
function rising(wished) {
  const pools = [];
  for (const value of wished) {
    pools.push({ sum: value, count: 1 });
    while (pools.length > 1 && pools.at(-2).sum / pools.at(-2).count > pools.at(-1).sum / pools.at(-1).count) {
      const last = pools.pop();
      pools.at(-1).sum += last.sum; pools.at(-1).count += last.count;
    }
  }
  return pools.flatMap((pool) => Array(pool.count).fill(pool.sum / pool.count));
}

// Curves from side to side, each with a place of its own along a node's side.
function routes(way, edges, forward, chains, places) {
  const ports = portOffsets(way, forward, chains, places);
  const nodes = [...places.values()].filter((p) => !p.lane).map((p) => way.xy(p.u, p.v));
  const taken = nodes.map((p) => box(p.x, p.y, NODE.width + 8, NODE.height + 8));
  const found = new Map();
  for (const edge of forward) {
    const points = linePoints(way, chains.get(edge.key), ports.get(edge.key), places);
    if (edge.turned) points.reverse();
    found.set(edge.key, { path: curve(way, points), head: head(way, points), label: labelPlace(way, points, taken) });
  }
  for (const edge of edges.filter((edge) => edge.source === edge.destination)) {
    const { x, y } = way.xy(places.get(edge.source).u, places.get(edge.source).v);
    const top = y - NODE.height / 2;
    const path = `M${x - 34},${top} C${x - 60},${top - 62} ${x + 60},${top - 62} ${x + 34},${top - 5}`;
    found.set(keyOf(edge), { path, head: { x: x + 34, y: top, angle: 90 }, label: { x, y: top - 58 } });
  }
  return found;
}

function portOffsets(way, forward, chains, places) {
  const offsets = new Map(forward.map((edge) => [edge.key, { from: 0, to: 0 }]));
  const spread = (side, neighbor) => {
    for (const list of group(forward, (edge) => edge[side]).values()) {
      const sorted = [...list].sort((a, b) => neighbor(a) - neighbor(b));
      const step = Math.min(way.across / 5, (way.across - 18) / Math.max(1, sorted.length - 1));
      sorted.forEach((edge, at) => { offsets.get(edge.key)[side] = (at - (sorted.length - 1) / 2) * step; });
    }
  };
  spread("from", (edge) => places.get(chains.get(edge.key)[1]).v);
  spread("to", (edge) => places.get(chains.get(edge.key).at(-2)).v);
  return offsets;
}

function linePoints(way, chain, port, places) {
  const half = way.along / 2;
  return chain.flatMap((id, at) => {
    const { u, v, lane } = places.get(id);
    if (at === 0) return [{ u: u + half, v: v + port.from }];
    if (at === chain.length - 1) return [{ u: u - half, v: v + port.to }];
    return lane ? [{ u: u - half, v }, { u: u + half, v }] : [];
  });
}

function curve(way, points) {
  const show = (u, v) => { const { x, y } = way.xy(u, v); return `${x.toFixed(1)},${y.toFixed(1)}`; };
  let path = `M${show(points[0].u, points[0].v)}`;
  for (let at = 1; at < points.length; at += 1) {
    const [a, b] = [points[at - 1], points[at]];
    const bend = (b.u - a.u) * 0.45;
    const end = at === points.length - 1 ? b.u - Math.sign(b.u - a.u) * 7 : b.u;
    path += ` C${show(a.u + bend, a.v)} ${show(b.u - bend, b.v)} ${show(end, b.v)}`;
  }
  return path;
}

function head(way, points) {
  const [a, b] = points.slice(-2);
  return { ...way.xy(b.u, b.v), angle: b.u >= a.u ? way.angle : way.angle + 180 };
}

// The first place along the edge where the label covers no node and no other label.
function labelPlace(way, points, taken) {
  const segments = points.slice(1).map((b, at) => [points[at], b]);
  const middle = Math.floor((segments.length - 1) / 2);
  const order = [...segments.keys()].sort((a, b) => Math.abs(a - middle) - Math.abs(b - middle));
  let first;
  for (const slip of way.slips) {
    for (const at of order) {
      for (const t of [0.5, 0.42, 0.58, 0.34, 0.66, 0.28, 0.72]) {
        const on = pointOn(segments[at], t);
        const spot = way.xy(on.u, on.v + slip);
        first ??= spot;
        const wanted = box(spot.x, spot.y, LABEL.width + 6, LABEL.height + 6);
        if (taken.some((other) => overlaps(wanted, other))) continue;
        taken.push(wanted);
        return spot;
      }
    }
  }
  return first;
}

function pointOn([a, b], t) {
  const bend = (b.u - a.u) * 0.45;
  const blend = (p0, p1, p2, p3) => (1 - t) ** 3 * p0 + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t ** 2 * p2 + t ** 3 * p3;
  return { u: blend(a.u, a.u + bend, b.u - bend, b.u), v: blend(a.v, a.v, b.v, b.v) };
}

const box = (x, y, width, height) => ({ left: x - width / 2, right: x + width / 2, top: y - height / 2, bottom: y + height / 2 });
const overlaps = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const mean = (list) => (list.length > 0 ? list.reduce((sum, one) => sum + one, 0) / list.length : undefined);

function group(list, by) {
  const groups = new Map();
  for (const one of list) groups.set(by(one), [...(groups.get(by(one)) ?? []), one]);
  return groups;
}
