"use strict";
// Draws the charts from the numbers in #charts. Without it the page keeps every number: each chart has a table beside it.
const charts = JSON.parse(document.getElementById("charts").textContent);
const count = d3.format(",");
const short = (value) => (value >= 1000 ? d3.format("~s")(value) : d3.format("~r")(value));
const day = (at) => at.slice(0, 10);
const minute = (at) => at.slice(0, 16).replace("T", " ");

function ticks(steps, width) {
  const wanted = Math.max(1, Math.min(steps.length, Math.floor(width / 110)));
  const gap = Math.ceil(steps.length / wanted);
  return d3.range(0, steps.length, gap);
}

function label(steps, at) {
  const [first, last] = [steps[0].at, steps[steps.length - 1].at];
  if (day(first) !== day(last)) return day(steps[at].at);
  return new Date(last) - new Date(first) < 9e5 ? steps[at].at.slice(11, 19) : steps[at].at.slice(11, 16);
}

// A bar is never wider than a bar of twenty: one batch is one bar, not a wall.
function padding(steps, width) {
  const room = (width - 56) / steps.length;
  return Math.max(steps.length > 40 ? 0.1 : 0.25, 1 - 44 / room);
}

function frame(steps, width, options) {
  return {
    width,
    height: 168,
    marginLeft: 48,
    marginRight: 8,
    marginBottom: 26,
    marginTop: 14,
    style: { background: "none", fontSize: "12px", overflow: "visible" },
    x: { type: "band", domain: d3.range(steps.length), ticks: ticks(steps, width), tickFormat: (at) => label(steps, at), label: null, padding: padding(steps, width), tickSize: 3 },
    y: { grid: true, ticks: 4, tickFormat: short, label: null, zero: true, nice: true },
    ...options,
  };
}

function told(step) {
  return [
    step.label,
    minute(step.at) + " UTC",
    count(step.read) + " read",
    count(step.written) + " written",
    count(step.quarantined) + " quarantined",
    count(step.superseded) + " superseded",
    d3.format(",.1f")(step.seconds) + " s" + (step.batches > 1 ? " a batch" : ""),
  ].join("\n");
}

function pointed(steps, y) {
  return Plot.tip(steps, Plot.pointerX({ x: (_, at) => at, y, title: told, fill: "var(--card)", stroke: "var(--line)", fontSize: 12 }));
}

const KINDS = ["written", "superseded", "quarantined"];

const draw = {
  rows(key, width) {
    const steps = flow(key);
    const parts = KINDS.flatMap((kind) => steps.map((step, at) => ({ at, kind, rows: step[kind] }))).filter((part) => part.rows);
    const most = d3.max(steps, (step) => Math.max(step.read, step.written + step.superseded + step.quarantined));
    return Plot.plot(frame(steps, width, {
      ariaLabel: "Rows of each batch",
      y: { grid: true, ticks: 4, tickFormat: short, label: null, domain: [0, most || 1], nice: true },
      color: { domain: KINDS, range: KINDS.map((kind) => `var(--${kind})`) },
      marks: [
        Plot.barY(parts, { x: "at", y: "rows", fill: "kind", order: KINDS, ariaHidden: "true" }),
        Plot.tickY(steps, { x: (_, at) => at, y: "read", stroke: "var(--read)", strokeWidth: 1.5, ariaHidden: "true" }),
        Plot.ruleY([0], { stroke: "var(--soft)" }),
        pointed(steps, (step) => step.read),
      ],
    }));
  },
  quarantined: (key, width) => bars(key, width, "quarantined", "var(--quarantined)", "Rows quarantined in each batch", true),
  seconds: (key, width) => bars(key, width, "seconds", "var(--superseded)", "Seconds each batch took", false),
  age(key, width) {
    const steps = flow(key);
    const hours = steps.map((step, place) => ({ ...step, place })).filter((step) => step.age_h !== null);
    const worst = d3.max(hours, (step) => step.age_h) || 0;
    const [unit, factor] = worst < 0.1 ? ["s", 3600] : worst < 2 ? ["min", 60] : worst < 72 ? ["h", 1] : ["days", 1 / 24];
    const known = hours.map((step) => ({ ...step, age: step.age_h * factor }));
    const limit = charts[key.split("/")[0]].freshness_h;
    return Plot.plot(frame(steps, width, {
      ariaLabel: `Age of the newest input at the end of each batch, in ${unit}`,
      y: { grid: true, ticks: 4, tickFormat: (value) => `${d3.format("~r")(value)} ${unit}`, label: null, domain: [0, worst * factor * 1.05 || 1], nice: true },
      marginLeft: 58,
      marks: [
        Plot.ruleY([0], { stroke: "var(--soft)" }),
        limit !== null && limit <= worst * 1.05 ? Plot.ruleY([limit * factor], { stroke: "var(--quarantined)", strokeDasharray: "4 3" }) : null,
        Plot.lineY(known, { x: "place", y: "age", stroke: "var(--written)", strokeWidth: 1.6, ariaHidden: "true" }),
        Plot.dot(known, { x: "place", y: "age", fill: "var(--written)", r: known.length > 60 ? 1.2 : 3, ariaHidden: "true" }),
        Plot.tip(known, Plot.pointerX({ x: "place", y: "age", title: (step) => `${step.label}\n${minute(step.at)} UTC\n${d3.format(",.1f")(step.age)} ${unit}`, fill: "var(--card)", stroke: "var(--line)" })),
      ],
    }));
  },
  runs(key, width) {
    const { runs, sla_m: sla } = charts[key];
    const worst = d3.max(runs, (run) => run.minutes) || 0;
    return Plot.plot(frame(runs, width, {
      height: 190,
      ariaLabel: "Minutes each run took",
      y: { grid: true, ticks: 4, tickFormat: short, label: null, domain: [0, Math.max(worst, sla !== null && sla <= 20 * worst ? sla : 0) * 1.05 || 1] },
      marks: [
        Plot.barY(runs, { x: (_, at) => at, y: "minutes", fill: (run) => (run.status === "failed" ? "var(--quarantined)" : "var(--written)"), ariaHidden: "true" }),
        Plot.ruleY([0], { stroke: "var(--soft)" }),
        sla !== null && sla <= 20 * worst ? Plot.ruleY([sla], { stroke: "var(--quarantined)", strokeDasharray: "4 3" }) : null,
        Plot.tip(runs, Plot.pointerX({ x: (_, at) => at, y: "minutes", title: (run) => `${minute(run.at)} UTC\n${d3.format(",.1f")(run.minutes)} min\n${run.status}`, fill: "var(--card)", stroke: "var(--line)" })),
      ],
    }));
  },
  reasons(key, width) {
    const { reasons } = charts[key];
    const room = Math.min(width * 0.5, 14 + 7.2 * d3.max(reasons, (each) => each.reason.length));
    return Plot.plot({
      width,
      height: 30 + 26 * reasons.length,
      marginLeft: room,
      marginRight: 60,
      style: { background: "none", fontSize: "12px" },
      ariaLabel: "Letters by reason",
      x: { axis: null },
      y: { label: null, tickSize: 0, domain: reasons.map((_, at) => at), tickFormat: (at) => cut(reasons[at].reason, (room - 14) / 7.2) },
      marks: [
        Plot.barX(reasons, { y: (_, at) => at, x: "letters", fill: "var(--superseded)", ariaHidden: "true" }),
        Plot.barX(reasons, { y: (_, at) => at, x: "open", fill: "var(--quarantined)", ariaHidden: "true" }),
        Plot.text(reasons, { y: (_, at) => at, x: "letters", text: (each) => count(each.letters), dx: 6, textAnchor: "start", ariaHidden: "true" }),
      ],
    });
  },
};

function bars(key, width, field, colour, ariaLabel, whole) {
  const steps = flow(key);
  const most = d3.max(steps, (step) => step[field]) || 1;
  return Plot.plot(frame(steps, width, {
    ariaLabel,
    y: { grid: true, ticks: whole ? Math.min(4, most) : 4, tickFormat: short, label: null, domain: [0, most], nice: true },
    marks: [
      Plot.barY(steps, { x: (_, at) => at, y: field, fill: colour, ariaHidden: "true" }),
      Plot.ruleY([0], { stroke: "var(--soft)" }),
      pointed(steps, (step) => step[field]),
    ],
  }));
}

function flow(key) {
  const [job, name] = key.split("/");
  return charts[job].flows[name];
}

function cut(text, most) {
  return text.length > most ? text.slice(0, Math.max(1, most - 1)) + "…" : text;
}

function trend(element) {
  const values = charts[element.dataset.key].trends[Number(element.dataset.trend)];
  const points = values.map((value, at) => ({ at, value }));
  const svg = Plot.plot({
    width: 132, height: 30, margin: 3, axis: null,
    y: { domain: [0, d3.max(values) || 1] },
    style: { background: "none" },
    marks: [
      Plot.ruleY([0], { stroke: "var(--line)" }),
      points.length > 1
        ? Plot.areaY(points, { x: "at", y: "value", fill: "var(--quarantined)", fillOpacity: 0.25 })
        : null,
      points.length > 1 ? Plot.lineY(points, { x: "at", y: "value", stroke: "var(--quarantined)", strokeWidth: 1.5 }) : Plot.dot(points, { x: "at", y: "value", fill: "var(--quarantined)" }),
    ],
  });
  svg.setAttribute("aria-hidden", "true");
  element.replaceChildren(svg);
}

function show(element) {
  const width = Math.floor(element.clientWidth);
  if (!width || element.dataset.drawn === String(width)) return;
  element.dataset.drawn = String(width);
  const svg = draw[element.dataset.chart](element.dataset.key, width);
  svg.setAttribute("role", "img");
  element.replaceChildren(svg);
}

const seen = new IntersectionObserver((entries) => entries.forEach((entry) => entry.isIntersecting && show(entry.target)), { rootMargin: "600px" });
const sized = new ResizeObserver((entries) => entries.forEach((entry) => entry.target.dataset.drawn && show(entry.target)));
document.querySelectorAll("[data-chart]").forEach((element) => { seen.observe(element); sized.observe(element); });
document.querySelectorAll("[data-trend]").forEach(trend);
window.addEventListener("beforeprint", () => document.querySelectorAll("[data-chart]").forEach(show));
