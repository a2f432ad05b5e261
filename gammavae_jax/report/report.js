"use strict";
// Draws the interactive parts of report.html. Names are untrusted, so they are inserted
// only as text nodes or attribute values, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const state = { machine: 0, score: 0, seed: 0, filter: "all", clip: null };
  const SVG = "http://www.w3.org/2000/svg";

  function make(tag, attributes = {}, ...children) {
    return fill(document.createElement(tag), attributes, children);
  }
  function draw(tag, attributes = {}, ...children) {
    return fill(document.createElementNS(SVG, tag), attributes, children);
  }
  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  // ---- numbers as text

  const minus = (text) => String(text).replace("-", "\u2212");
  function short(value) {
    if (value === null) return "\u2013";
    const size = Math.abs(value);
    if (size !== 0 && (size >= 1e5 || size < 1e-3)) return minus(value.toExponential(1));
    return minus(size >= 100 ? value.toFixed(0) : value.toFixed(size >= 10 ? 1 : 2));
  }
  const percent = (fraction) => (fraction === null ? "\u2013" : (100 * fraction).toFixed(1));
  const hertz = (f) => (f >= 1000 ? `${+(f / 1000).toFixed(2)} kHz` : `${Math.round(f)} Hz`);
  const pValue = (p) => (p === null ? "\u2013" : p < 0.001 ? p.toExponential(1) : p.toFixed(3));
  // No p-value is smaller than `least`: a smaller one would need more training recordings.
  const isLeast = (p, least) => p !== null && least !== null && p <= least * (1 + 1e-6);

  // ---- sortable tables

  function sortKey(row, column, kind) {
    const cell = row.cells[column].textContent.trim();
    if (kind === "text") return cell;
    const number = parseFloat(cell);
    return Number.isNaN(number) ? null : number;
  }
  function sortTable(table, column, kind, header) {
    const was = header.getAttribute("aria-sort");
    const first = kind === "text" ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = was === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [sortKey(row, column, kind), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (kind === "text" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    });
    body.append(...rows.map(([, row]) => row));
    for (const cell of table.tHead.rows[0].cells) {
      if (cell.hasAttribute("aria-sort")) cell.setAttribute("aria-sort", "none");
    }
    header.setAttribute("aria-sort", order);
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
      const kind = header.dataset.kind;
      if (kind === "none") return;
      const button = make("button", { type: "button" }, ...header.childNodes);
      header.append(button);
      header.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sortTable(table, column, kind, header));
    });
  }

  // ---- the selection

  const machine = () => data.machines[state.machine];
  const scored = () => machine().scores[data.scores[state.score]][state.seed];
  const isAlarm = (clip) => scored().alarms[clip] === "1";
  const block = (clip) => $(`clip-${state.machine}-${clip}`);
  function outcome(clip) {
    const label = machine().labels[clip];
    if (!label) return isAlarm(clip) ? "alarm" : "no alarm";
    if (label === "anomaly") return isAlarm(clip) ? "found" : "missed";
    return isAlarm(clip) ? "false alarm" : "no alarm";
  }
  function ranked() {
    const { values } = scored();
    return values.map((_, clip) => clip).sort((a, b) => values[b] - values[a] || a - b);
  }

  // ---- charts

  const CLASSES = [["normal", "normal"], ["anomaly", "anomalous"], ["", "unlabelled"]];

  function axisOf(values, threshold) {
    const sorted = values.concat(threshold === null ? [] : [threshold]).sort((a, b) => a - b);
    const low = sorted[0];
    const most = sorted[sorted.length - 1];
    const high95 = sorted[Math.floor(0.95 * (sorted.length - 1))];
    // A few extreme scores would squeeze all others together, so the last bar holds them.
    const high = Math.max(Math.min(most, high95 + 1.5 * (high95 - low)), threshold ?? low);
    return { low, high: high > low ? high : low + 1, isCut: most > high };
  }

  // Recordings of a user's own machine have neither labels nor domains.
  const hasLabels = data.machines.some((m) => m.labels.some(Boolean));
  const hasDomains = data.machines.some((m) => m.domains.some(Boolean));

  function drawHistogram() {
    const place = $("histogram");
    const { values, threshold } = scored();
    const { labels, domains } = machine();
    const groups = ["source", "target", ""].filter((d) => domains.includes(d));
    const width = Math.max(place.clientWidth, 240);
    const [left, right, panel, gap] = [40, 8, 104, 26];
    const head = 34; // room for the threshold's label and the first panel's domain
    const height = head + groups.length * (panel + gap) + 22;
    const { low, high, isCut } = axisOf(values, threshold);
    const nBins = Math.max(12, Math.min(36, Math.floor(width / 20)));
    const x = (v) => left + ((width - left - right) * (Math.min(v, high) - low)) / (high - low);
    const bin = (v) => Math.min(nBins - 1, Math.floor((nBins * (Math.min(v, high) - low)) / (high - low)));
    const count = (group, label) => {
      const counts = new Array(nBins).fill(0);
      values.forEach((v, i) => {
        if (domains[i] === group && labels[i] === label) counts[bin(v)] += 1;
      });
      return counts;
    };
    const svg = draw("svg", { class: "chart", height, viewBox: `0 0 ${width} ${height}`, role: "img" });
    const all = groups.map((group) => ["normal", "anomaly", ""].map((label) => count(group, label)));
    const most = Math.max(1, ...all.flat(2));
    groups.forEach((group, g) => {
      const top = head + g * (panel + gap);
      const [normal, anomaly, unknown] = all[g];
      const isMirrored = anomaly.some(Boolean);
      const base = isMirrored ? top + panel / 2 : top + panel;
      const room = isMirrored ? panel / 2 : panel;
      const bar = (counts, kind, down) => counts.forEach((n, b) => {
        if (!n) return;
        const tall = (room * n) / most;
        const step = (width - left - right) / nBins;
        svg.append(draw("rect", {
          class: kind, x: left + b * step + 0.5, width: Math.max(step - 1, 1),
          y: down ? base : base - tall, height: tall,
        }));
      });
      bar(normal, "normal", false);
      bar(anomaly, "anomaly", true);
      bar(unknown, "unknown", false);
      svg.append(
        draw("line", { class: "axis-line", x1: left, x2: width - right, y1: base, y2: base }),
        draw("text", { x: left, y: top - 7, class: "strong" }, group ? `${group} domain` : hasDomains ? "domain unknown" : ""),
        draw("text", { x: left - 6, y: base - room + 10, "text-anchor": "end" }, String(most)),
        draw("text", { x: left - 6, y: base + 4, "text-anchor": "end" }, "0"),
      );
      if (isMirrored) {
        svg.append(draw("text", { x: left - 6, y: base + room, "text-anchor": "end" }, String(most)));
      }
    });
    const bottom = height - 22;
    for (let t = 0; t <= 4; t += 1) {
      const v = low + (t * (high - low)) / 4;
      const anchor = t === 0 ? "start" : t === 4 ? "end" : "middle";
      const atLeast = t === 4 && isCut ? "\u2265 " : "";
      svg.append(draw("text", { x: x(v), y: bottom + 8, "text-anchor": anchor }, atLeast + short(v)));
    }
    if (threshold !== null) {
      const at = x(threshold);
      svg.append(
        draw("line", { class: "threshold", x1: at, x2: at, y1: 14, y2: bottom - 6 }),
        draw("text", { class: "strong", x: at + (at > width / 2 ? -5 : 5), y: 10, "text-anchor": at > width / 2 ? "end" : "start" }, `threshold ${short(threshold)}`),
      );
    }
    if (state.clip !== null) {
      const at = x(values[state.clip]);
      svg.append(draw("path", { class: "here", d: `M${at - 5},${bottom - 2} h10 l-5,-8 z` }, draw("title", {}, "the selected clip")));
    }
    const nAlarms = Array.from(scored().alarms).filter((a) => a === "1").length;
    svg.setAttribute("aria-label", `Histogram of ${values.length} scores by domain and label. The lowest is ${short(low)}; ${nAlarms} are above the threshold ${short(threshold)}`);
    const used = hasLabels ? CLASSES.filter(([label]) => labels.includes(label)) : [];
    const direction = { normal: ", upwards", anomaly: ", downwards" };
    place.replaceChildren(svg, make("div", { class: "legend" }, ...used.map(([label, word]) =>
      make("span", {}, draw("svg", { viewBox: "0 0 16 7", "aria-hidden": "true" }, draw("rect", { class: label || "unknown", width: 16, height: 7 })),
        word + (used.length > 1 ? direction[label] ?? "" : "")))));
    $("histogram-title").textContent = `Number of clips by score${data.isEvaluated ? ` (${data.scores[state.score]})` : ""}${hasDomains ? " and domain" : ""}`;
  }

  // Points of a ROC curve, [false-alarm rate, detection rate]; equal scores form one step.
  function rocOf(clips) {
    const { values } = scored();
    const { labels } = machine();
    const order = clips.slice().sort((a, b) => values[b] - values[a]);
    const total = { normal: 0, anomaly: 0 };
    clips.forEach((clip) => { total[labels[clip]] += 1; });
    if (!total.normal || !total.anomaly) return null;
    const seen = { normal: 0, anomaly: 0 };
    const points = [[0, 0]];
    order.forEach((clip, i) => {
      seen[labels[clip]] += 1;
      if (i + 1 === order.length || values[order[i + 1]] !== values[clip]) {
        points.push([seen.normal / total.normal, seen.anomaly / total.anomaly]);
      }
    });
    return points;
  }
  function upTo(points, most) {
    const inside = [];
    for (const [i, point] of points.entries()) {
      if (point[0] <= most) { inside.push(point); continue; }
      const [a, b] = [points[i - 1], point];
      inside.push([most, a[1] + ((b[1] - a[1]) * (most - a[0])) / (b[0] - a[0])]);
      break;
    }
    return inside;
  }

  function drawRoc() {
    const { labels, domains } = machine();
    const figure = $("roc-figure");
    const every = labels.map((_, clip) => clip);
    const all = labels.every(Boolean) ? rocOf(every) : null;
    figure.hidden = all === null;
    figure.parentElement.style.gridTemplateColumns = all === null ? "minmax(0, 1fr)" : "";
    if (all === null) return;
    const place = $("roc");
    const width = Math.max(240, Math.min(place.clientWidth, 420));
    const [left, bottom, top] = [40, 38, 10];
    const height = Math.min(300, width * 0.8);
    const x = (f) => left + (width - left - 10) * f;
    const y = (f) => height - bottom - (height - bottom - top) * f;
    const path = (points) => points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ");
    const svg = draw("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
    svg.style.maxWidth = `${width}px`;
    const region = upTo(all, data.maxFpr);
    svg.append(
      draw("polygon", { class: "pauc", points: `${path([[0, 0]])} ${path(region)} ${path([[data.maxFpr, 0]])}` }),
      draw("polyline", { class: "chance", points: path([[0, 0], [1, 1]]) }),
      draw("line", { class: "axis-line", x1: x(0), x2: x(1), y1: y(0), y2: y(0) }),
      draw("line", { class: "axis-line", x1: x(0), x2: x(0), y1: y(0), y2: y(1) }),
    );
    for (const f of [0, data.maxFpr, 0.5, 1]) {
      svg.append(draw("text", { x: x(f), y: y(0) + 15, "text-anchor": "middle" }, String(Math.round(100 * f))));
    }
    for (const f of [0, 0.5, 1]) {
      svg.append(draw("text", { x: x(0) - 6, y: y(f) + 4, "text-anchor": "end" }, String(100 * f)));
    }
    svg.append(
      draw("text", { x: (x(0) + x(1)) / 2, y: height - 4, "text-anchor": "middle" }, "false alarms, % of normal clips"),
      draw("text", { x: x(0) + 6, y: top + 10 }, "% of anomalies found"),
    );
    const curves = [["all", "all clips", all]];
    const isSplit = domains.includes("source") && domains.includes("target");
    if (isSplit) {
      for (const domain of ["source", "target"]) {
        const clips = every.filter((c) => labels[c] === "anomaly" || domains[c] === domain);
        curves.push([domain, `normal clips of the ${domain} domain`, rocOf(clips)]);
      }
    }
    const drawn = curves.filter(([, , points]) => points);
    drawn.slice().reverse().forEach(([kind, , points]) => svg.append(draw("polyline", { class: `roc ${kind}`, points: path(points) })));
    const normal = every.filter((c) => labels[c] === "normal");
    const faulty = every.filter((c) => labels[c] === "anomaly");
    const rate = (clips) => clips.filter(isAlarm).length / clips.length;
    svg.append(draw("circle", { class: "here", cx: x(rate(normal)), cy: y(rate(faulty)), r: 4.5 }, draw("title", {}, "at the threshold")));
    const metrics = scored().metrics;
    const summary = metrics
      ? `AUC ${percent(metrics.auc_source)} source, ${percent(metrics.auc_target)} target; pAUC ${percent(metrics.pauc)}`
      : "";
    svg.setAttribute("aria-label", `ROC curve. ${summary}. At the threshold, ${percent(rate(faulty))} % of anomalies are found, with ${percent(rate(normal))} % false alarms`);
    const keys = drawn.map(([kind, word]) => make("span", {},
      draw("svg", { viewBox: "0 0 26 7", "aria-hidden": "true" }, draw("polyline", { class: `roc ${kind}`, points: "0,3.5 26,3.5" })), word));
    keys.push(make("span", {}, draw("svg", { viewBox: "0 0 16 7", "aria-hidden": "true" }, draw("rect", { class: "pauc", width: 16, height: 7 })), `pAUC, up to ${100 * data.maxFpr} %`));
    keys.push(make("span", {}, draw("svg", { viewBox: "0 0 16 7", "aria-hidden": "true" }, draw("circle", { class: "here", cx: 8, cy: 3.5, r: 3.5 })), "at the threshold"));
    place.replaceChildren(svg, make("div", { class: "legend" }, ...keys));
    $("roc-title").textContent = summary ? `ROC: ${summary}` : "ROC";
  }

  // ---- the list of clips

  const FILTERS = [
    ["all", "all clips", () => true],
    ["pictures", "with pictures", (clip) => block(clip) !== null],
    ["alarms", "alarms", isAlarm],
    ["false", "false alarms", (clip) => outcome(clip) === "false alarm"],
    ["missed", "missed", (clip) => outcome(clip) === "missed"],
  ];
  let listed = [];

  function drawFilters() {
    const clips = ranked();
    const options = FILTERS.map(([key, word, keeps]) => [key, word, clips.filter(keeps).length])
      .filter(([key, , n]) => n > 0 || key === "all");
    if (!options.some(([key]) => key === state.filter)) state.filter = "all";
    $("filter").replaceChildren(...options.map(([key, word, n]) =>
      make("option", { value: key, selected: key === state.filter && "" }, `${word} (${n})`)));
  }

  function drawRanking() {
    const { values, p } = scored();
    const { clips, labels, domains, leastP } = machine();
    const [, , keeps] = FILTERS.find(([key]) => key === state.filter);
    const places = new Map(ranked().map((clip, rank) => [clip, rank + 1]));
    listed = ranked().filter(keeps);
    $("ranking").replaceChildren(...listed.map((clip) => {
      const result = outcome(clip);
      const isWrong = result === "false alarm" || result === "missed";
      const label = { normal: "normal", anomaly: "anomalous" }[labels[clip]] ?? (hasLabels ? "unlabelled" : "");
      const meta = [label, domains[clip], p ? `p ${isLeast(p[clip], leastP) ? "\u2264" : "="} ${pValue(p[clip])}` : ""].filter(Boolean).join(" \u00b7 ");
      const mark = block(clip) ? make("span", { class: "pictured", role: "img", "aria-label": "with pictures" }) : null;
      return make("li", { role: "option", id: `option-${clip}`, "data-clip": clip, "aria-selected": "false" },
        make("span", { class: "rank" }, String(places.get(clip)), mark),
        make("span", { class: "name" }, clips[clip]),
        make("span", { class: "score" }, short(values[clip])),
        make("span", { class: "meta" }, meta),
        make("span", { class: isWrong ? "outcome wrong" : "outcome" }, result));
    }));
    if (!listed.length) $("ranking").append(make("li", { class: "empty" }, "no clips"));
    markChosen(false);
  }

  function markChosen(isScrolled) {
    const list = $("ranking");
    for (const option of list.querySelectorAll('[aria-selected="true"]')) option.setAttribute("aria-selected", "false");
    const option = state.clip === null ? null : $(`option-${state.clip}`);
    if (!option) { list.removeAttribute("aria-activedescendant"); return; }
    option.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", option.id);
    const [top, end] = [option.offsetTop - list.offsetTop, option.offsetTop - list.offsetTop + option.offsetHeight];
    if (isScrolled && top < list.scrollTop) list.scrollTop = top;
    if (isScrolled && end > list.scrollTop + list.clientHeight) list.scrollTop = end - list.clientHeight;
  }

  function choose(clip) {
    if (clip === state.clip) return;
    state.clip = clip;
    markChosen(true);
    drawHistogram();
    drawClip();
  }

  // ---- colour scales, interpolated in OKLCH, a perceptually uniform space

  function rgb([lightness, chroma, hue]) {
    const [a, b] = [chroma * Math.cos((hue * Math.PI) / 180), chroma * Math.sin((hue * Math.PI) / 180)];
    const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
    const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
    const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
    const linear = [
      4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
      -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
      -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
    ];
    return linear.map((v) => {
      const c = Math.min(Math.max(v, 0), 1);
      return Math.round(255 * (c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055));
    });
  }
  function ramp(stops) {
    return Array.from({ length: 256 }, (_, i) => {
      const at = (i / 255) * (stops.length - 1);
      const k = Math.min(Math.floor(at), stops.length - 2);
      return rgb(stops[k].map((v, c) => v + (at - k) * (stops[k + 1][c] - v)));
    });
  }
  const darkness = matchMedia("(prefers-color-scheme: dark)");
  function ramps() {
    const levels = ramp([[0.16, 0.06, 295], [0.36, 0.12, 275], [0.55, 0.09, 215], [0.75, 0.14, 155], [0.95, 0.13, 105]]);
    return darkness.matches
      ? { levels, signed: ramp([[0.82, 0.1, 235], [0.52, 0.11, 245], [0.2, 0.0, 245]]).slice(0, 255)
            .filter((_, i) => i % 2 === 0).concat(ramp([[0.2, 0.0, 60], [0.55, 0.12, 50], [0.85, 0.13, 75]]).filter((_, i) => i % 2 === 0)),
          raising: ramp([[0.2, 0.0, 60], [0.5, 0.13, 45], [0.75, 0.16, 60], [0.93, 0.12, 95]]) }
      : { levels, signed: ramp([[0.4, 0.13, 258], [0.7, 0.1, 245], [0.98, 0.0, 245]])
            .filter((_, i) => i % 2 === 0).concat(ramp([[0.98, 0.0, 60], [0.74, 0.13, 60], [0.48, 0.14, 40]]).filter((_, i) => i % 2 === 0)),
          raising: ramp([[0.985, 0.0, 75], [0.82, 0.13, 70], [0.62, 0.18, 42], [0.35, 0.12, 25]]) };
  }

  // ---- the selected clip

  let shown = null; // the elements and data of the selected clip, if it has pictures
  let turn = 0; // counts selections, so that a slow drawing does not replace a later one

  async function inflate(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // An audio element must be unloaded before its object URL is revoked.
  function leave() {
    if (shown?.audio) {
      cancelAnimationFrame(shown.frame);
      shown.audio.pause();
      shown.audio.removeAttribute("src");
      shown.audio.load();
      URL.revokeObjectURL(shown.url);
    }
    shown = null;
  }

  function facts(clip) {
    const { values, p, threshold } = scored();
    const { labels, domains, leastP } = machine();
    const pairs = [
      [data.isEvaluated ? data.scores[state.score] : "score", short(values[clip])],
      ["threshold", short(threshold)],
      ["p-value", p ? (isLeast(p[clip], leastP) ? "\u2264 " : "") + pValue(p[clip]) : "\u2013"],
      ["decision", isAlarm(clip) ? "alarm" : "no alarm"],
    ];
    if (hasLabels) pairs.push(["label", { normal: "normal", anomaly: "anomalous" }[labels[clip]] ?? "unknown"]);
    if (hasDomains) pairs.push(["domain", domains[clip] || "unknown"]);
    return make("dl", { class: "clip-facts" }, ...pairs.map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  }

  function quoted(name) { return `'${name.replace(/'/g, "'\\''")}'`; }

  async function drawClip() {
    const mine = (turn += 1);
    const clip = state.clip;
    const place = $("clip");
    leave();
    if (clip === null) { place.replaceChildren(); return; }
    const title = make("h3", {}, machine().clips[clip]);
    const source = block(clip);
    if (!source) {
      const how = data.howToShow
        ? [make("p", {}, "To add them, run"), make("p", {}, make("code", {}, data.howToShow.replace("{clip}", () => quoted(`${machine().name}/${machine().clips[clip]}`))))]
        : [];
      place.replaceChildren(title, facts(clip), make("p", {}, "This page has no pictures or sound for this clip."), ...how);
      return;
    }
    const payload = JSON.parse(source.textContent);
    const coded = [payload.spectrogram, payload.residual, payload.contribution, payload.reconstruction];
    const [levels, residual, raising, rebuilt] = await Promise.all(
      coded.map((picture) => picture && inflate(picture.data)));
    if (mine !== turn) return;
    shown = { payload, levels, residual, raising, rebuilt, audio: null, url: null, stages: [], frame: 0 };
    place.replaceChildren(title, facts(clip), ...why(payload, clip), ...player(payload), pictures(), profile(payload));
    paint();
    markTime();
  }

  const PARTS = {
    spectrum: "the overall sound", maximum: "the loudest moments", salient: "the rarest moments",
    gamma: "the power of each band", residual: "what the model did not expect",
    peak: "the loudest unexpected sound", latent: "the model's code",
  };
  function why(payload, clip) {
    const other = payload.score !== data.scores[state.score] || payload.seed !== data.seeds[state.seed];
    const lead = isAlarm(clip) ? "Why it raises an alarm: " : "What adds most to its score: ";
    const nodes = [make("p", { class: "why" }, make("b", {}, lead), payload.words)];
    if (payload.parts.length > 1) {
      const most = Math.max(...payload.parts.map(([, v]) => Math.abs(v)), 1e-9);
      const part = (v) => (Math.abs(v) < 1e-3 * most ? "0" : (v > 0 ? "+" : "") + short(v));
      nodes.push(make("div", { class: "parts" }, ...payload.parts.flatMap(([name, value]) => [
        make("span", {}, `${PARTS[name.split("_")[0]] ?? name} (${name})`),
        make("span", { class: "value" }, part(value)),
        make("span", { class: "track" }, make("i", { class: value < 0 ? "less" : "", style: "" })),
      ])));
      nodes[1].querySelectorAll("i").forEach((bar, i) => { bar.style.width = `${(100 * Math.abs(payload.parts[i][1])) / most}%`; });
    }
    const kind = payload.isExact
      ? "The contributions of the bands add up to the score. By convention, each is shown at the times when its band differs most from the nearest training clip."
      : "This score is not a sum over bands, so it is divided among them in proportion to their squared residuals.";
    const of = other ? ` The pictures explain ${payload.score} of seed ${payload.seed} (${short(payload.value)}).` : "";
    nodes.push(make("p", { class: "small" }, kind + of));
    return nodes;
  }

  function player(payload) {
    const { sound } = payload;
    if (!sound.data) return [make("p", { class: "small" }, sound.remark || "This clip has no sound.")];
    const bytes = Uint8Array.from(atob(sound.data), (c) => c.charCodeAt(0));
    shown.url = URL.createObjectURL(new Blob([bytes], { type: sound.type }));
    const audio = make("audio", { controls: "", preload: "auto", src: shown.url, "aria-label": "recording of this clip" });
    shown.audio = audio;
    for (const event of ["timeupdate", "seeking", "seeked"]) audio.addEventListener(event, markTime);
    audio.addEventListener("play", follow);
    const gain = Math.round(Math.abs(sound.gain));
    const louder = gain < 1 ? "as loud as recorded" : `${gain} dB ${sound.gain > 0 ? "louder" : "quieter"} than recorded`;
    return [audio, make("p", { class: "small" }, `Played ${louder}. Click a picture to jump to that time.`)];
  }
  function follow() {
    markTime();
    if (shown?.audio && !shown.audio.paused) shown.frame = requestAnimationFrame(follow);
  }
  function markTime() {
    if (!shown) return;
    const share = shown.audio ? shown.audio.currentTime / shown.payload.seconds : 0;
    for (const { cursor } of shown.stages) cursor.style.left = `${Math.min(100 * share, 100)}%`;
  }
  function seek(seconds) {
    if (!shown?.audio) return;
    shown.audio.currentTime = Math.min(Math.max(seconds, 0), shown.payload.seconds - 0.01);
    markTime();
  }

  // Each picture's value at a column and band; null where there is none.
  function kinds() {
    const { payload, levels, residual, raising, rebuilt } = shown;
    const decoded = (picture, codes) => (i) => (codes[i] === 255 ? null : picture.low + picture.step * codes[i]);
    const level = decoded(payload.spectrogram, levels);
    const rest = decoded(payload.residual, residual);
    // The page omits the reconstruction if it follows from a residual in dB.
    const reconstruction = rebuilt ? decoded(payload.reconstruction, rebuilt)
      : (i) => (rest(i) === null ? null : level(i) - rest(i));
    const range = [payload.spectrogram.low, payload.spectrogram.high];
    const { high: most, unit } = payload.residual;
    return [
      { title: "Spectrogram", unit: "dB", ramp: "levels", range, value: level },
      { title: "Reconstruction", unit: "dB", ramp: "levels", range, value: reconstruction },
      { title: "Residual", unit, symbol: unit === "dB" ? "dB" : "\u03c3", ramp: "signed", range: [-most, most], value: rest },
      { title: "What raises the score", unit: "", ramp: "raising", range: [0, payload.contribution.high], isRoot: true,
        value: (i) => payload.contribution.high * (raising[i] / 254) ** 2 },
    ];
  }

  function bandAt(frequency) {
    const { corners } = data;
    let i = corners.findIndex((corner) => corner > frequency);
    if (i < 0) i = corners.length - 1;
    return i - 2 + (frequency - corners[i - 1]) / (corners[i] - corners[i - 1]);
  }
  const TICKS = [125, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000];

  function pictures() {
    const { payload } = shown;
    const all = make("div", { class: "pictures" });
    for (const kind of kinds()) {
      const readout = make("span", {}, kind.unit ? `in ${kind.unit}` : "in units of the score");
      const canvas = make("canvas", { width: payload.columns, height: payload.bands, role: "img",
        "aria-label": `${kind.title}: time from left to right, frequency from bottom to top` });
      const cursor = make("div", { class: "cursor" });
      const stage = make("div", { class: shown.audio ? "stage" : "stage silent" }, canvas, cursor);
      if (!shown.audio) cursor.hidden = true;
      if (kind.title === "Spectrogram") stage.append(...regions());
      const scale = make("canvas", { width: 1, height: 256, "aria-hidden": "true" });
      const [low, high] = kind.range;
      const middle = kind.isRoot ? high / 4 : (low + high) / 2;
      const labels = [[high, 0], [middle, 50], [low, 100]].map(([v, at]) => {
        const symbol = kind.symbol ?? kind.unit;
        const label = make("span", {}, symbol ? `${symbol === "dB" ? whole(v) : tiny(v)} ${symbol}` : tiny(v));
        label.style.top = `${at}%`;
        return label;
      });
      const figure = make("figure", { class: "picture" },
        make("figcaption", {}, kind.title, readout), hertzAxis(), stage,
        make("div", { class: "scale" }, scale, ...labels), make("span"), secondsAxis());
      const idle = readout.textContent;
      stage.addEventListener("pointermove", (event) => {
        const { column, band } = under(event, stage);
        const value = kind.value(column * payload.bands + band);
        const text = value === null ? "\u2013" : kind.unit ? `${minus(value.toFixed(1))} ${kind.symbol ?? kind.unit}` : tiny(value);
        readout.textContent = `${((column + 0.5) * payload.secondsPerColumn).toFixed(2)} s, ${hertz(data.corners[band + 1])}: ${text}`;
      });
      stage.addEventListener("pointerleave", () => { readout.textContent = idle; });
      stage.addEventListener("click", (event) => seek(under(event, stage).share * payload.seconds));
      all.append(figure);
      shown.stages.push({ canvas, scale, cursor, kind });
    }
    return all;
  }
  // Short numbers for the colour scales.
  const narrow = (text) => minus(text).replace("e+", "e");
  const whole = (v) => narrow(Math.abs(v) < 1000 ? v.toFixed(0) : v.toExponential(0));
  const tiny = (v) => (v === 0 ? "0" : narrow(Math.abs(v) >= 1e-3 ? v.toPrecision(2) : v.toExponential(0)));

  function under(event, stage) {
    const box = stage.getBoundingClientRect();
    const within = (v) => Math.min(Math.max(v, 0), 1 - 1e-9);
    const share = within((event.clientX - box.left) / box.width);
    const up = 1 - within((event.clientY - box.top) / box.height) - 1e-9;
    return { share, column: Math.floor(share * shown.payload.columns), band: Math.max(Math.floor(up * shown.payload.bands), 0) };
  }

  function regions() {
    const { payload } = shown;
    return payload.regions.flatMap(({ bands: [first, last], moments }) =>
      (moments.length ? moments : [[0, payload.seconds]]).map(([start, end]) => {
        const box = make("div", { class: "region" });
        box.style.left = `${(100 * start) / payload.seconds}%`;
        box.style.width = `${(100 * (end - start)) / payload.seconds}%`;
        box.style.bottom = `${(100 * first) / payload.bands}%`;
        box.style.height = `${(100 * (last - first + 1)) / payload.bands}%`;
        return box;
      }));
  }

  function hertzAxis() {
    const svg = draw("svg", { class: "axis", "aria-hidden": "true" });
    const top = data.corners[data.corners.length - 1];
    for (const tick of TICKS.filter((t) => t < top)) {
      const share = (bandAt(tick) + 0.5) / shown.payload.bands;
      if (share < 0.04 || share > 0.93) continue;
      svg.append(draw("text", { x: "88%", y: `${100 * (1 - share)}%`, dy: "0.35em", "text-anchor": "end" }, tick >= 1000 ? `${tick / 1000}k` : String(tick)));
    }
    svg.append(draw("text", { x: "88%", y: 11, "text-anchor": "end" }, "Hz"));
    return svg;
  }
  function secondsAxis() {
    const { seconds } = shown.payload;
    const svg = draw("svg", { class: "axis", "aria-hidden": "true" });
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300].find((s) => seconds / s <= 6) ?? 600;
    for (let t = 0; t < seconds * 0.94; t += step) {
      svg.append(draw("text", { x: `${(100 * t) / seconds}%`, y: 14, "text-anchor": t ? "middle" : "start" }, String(+t.toFixed(1))));
    }
    svg.append(draw("text", { x: "100%", y: 14, "text-anchor": "end" }, "s"));
    return svg;
  }

  function paint() {
    if (!shown) return;
    const colours = ramps();
    const { payload } = shown;
    for (const { canvas, scale, kind } of shown.stages) {
      const table = colours[kind.ramp];
      const [low, high] = kind.range;
      const colour = (value) => {
        const share = Math.min(Math.max((value - low) / (high - low || 1), 0), 1);
        return table[Math.round((table.length - 1) * (kind.isRoot ? Math.sqrt(share) : share))];
      };
      const image = new ImageData(payload.columns, payload.bands);
      for (let column = 0; column < payload.columns; column += 1) {
        for (let band = 0; band < payload.bands; band += 1) {
          const value = kind.value(column * payload.bands + band);
          if (value === null) continue;
          const at = 4 * ((payload.bands - 1 - band) * payload.columns + column);
          image.data.set(colour(value), at);
          image.data[at + 3] = 255;
        }
      }
      canvas.getContext("2d").putImageData(image, 0, 0);
      const strip = new ImageData(1, 256);
      for (let i = 0; i < 256; i += 1) {
        strip.data.set([...table[Math.round((table.length - 1) * (1 - i / 255))], 255], 4 * i);
      }
      scale.getContext("2d").putImageData(strip, 0, 0);
    }
  }

  // What each band adds over the whole clip: negative if it deviates less than average.
  function profile(payload) {
    const place = make("figure", { class: "profile" }, make("figcaption", {}, "What each mel band adds to the score"));
    const width = Math.max($("clip").clientWidth, 240);
    const [left, right, top, height] = [48, 10, 8, 150];
    const low = Math.min(0, ...payload.profile);
    const high = Math.max(...payload.profile, low + 1e-9);
    const y = (v) => top + ((height - top - 34) * (high - v)) / (high - low);
    const step = (width - left - right) / payload.bands;
    const svg = draw("svg", { class: "chart", height, viewBox: `0 0 ${width} ${height}`, role: "img" });
    payload.profile.forEach((v, band) => svg.append(draw("rect", {
      class: v < 0 ? "normal" : "anomaly", x: left + band * step, width: Math.max(step - 0.6, 0.6),
      y: y(Math.max(v, 0)), height: Math.abs(y(v) - y(0)),
    })));
    svg.append(draw("line", { class: "axis-line", x1: left, x2: width - right, y1: y(0), y2: y(0) }));
    for (const v of new Set([high, 0, low])) {
      if (v !== 0 && Math.abs(y(v) - y(0)) < 12) continue;
      svg.append(draw("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, v > 0 ? `+${tiny(v)}` : tiny(v)));
    }
    const topHertz = data.corners[data.corners.length - 1];
    let before = 0;
    for (const tick of TICKS.filter((t) => t < topHertz)) {
      const x = left + (bandAt(tick) + 0.5) * step;
      if (x > width - 40 || x < before + 30) continue;
      before = x;
      svg.append(draw("text", { x, y: height - 16, "text-anchor": "middle" }, tick >= 1000 ? `${tick / 1000}k` : String(tick)));
    }
    svg.append(draw("text", { x: width - right, y: height - 16, "text-anchor": "end" }, "Hz"));
    const best = payload.profile.indexOf(Math.max(...payload.profile));
    svg.setAttribute("aria-label", `What each mel band adds to the score: most at ${hertz(data.corners[best + 1])}, ${tiny(payload.profile[best])}`);
    place.append(svg);
    return place;
  }

  // ---- wiring

  function options(select, names, chosen) {
    select.replaceChildren(...names.map((name, i) => make("option", { value: i, selected: i === chosen && "" }, String(name))));
  }
  function firstClip() {
    const order = ranked();
    return order.find((clip) => block(clip) !== null) ?? order[0] ?? null;
  }
  function drawAll() {
    drawFilters();
    drawRoc(); // before the histogram, which is wider if there is no ROC curve
    drawHistogram();
    drawRanking();
  }
  function onChoice(name, isOtherMachine) {
    return (event) => {
      state[name] = Number(event.target.value);
      if (isOtherMachine) state.clip = firstClip();
      drawAll();
      if (isOtherMachine) $("ranking").scrollTop = 0;
      drawClip();
    };
  }
  $("machine").addEventListener("change", onChoice("machine", true));
  $("score").addEventListener("change", onChoice("score", false));
  $("seed").addEventListener("change", onChoice("seed", false));
  $("filter").addEventListener("change", (event) => { state.filter = event.target.value; drawRanking(); });
  $("ranking").addEventListener("click", (event) => {
    const option = event.target.closest("[data-clip]");
    if (option) choose(Number(option.dataset.clip));
  });
  $("ranking").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !listed.length) return;
    const at = listed.indexOf(state.clip);
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: listed.length - 1 };
    if (event.key in moves) {
      choose(listed[Math.min(Math.max(moves[event.key], 0), listed.length - 1)]);
    } else if (event.key === " " && shown?.audio) {
      if (shown.audio.paused) shown.audio.play().catch(() => {}); else shown.audio.pause();
    } else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && shown?.audio) {
      seek(shown.audio.currentTime + (event.key === "ArrowLeft" ? -0.5 : 0.5));
    } else return;
    event.preventDefault();
  });
  darkness.addEventListener("change", paint);

  function start() {
    if (!data.machines.length) return;
    $("clips").hidden = false;
    options($("machine"), data.machines.map(({ name }) => name), 0);
    options($("score"), data.scores, 0);
    options($("seed"), data.seeds, 0);
    const isOne = data.machines.length === 1;
    $("machine-label").hidden = isOne;
    if (isOne) $("clips-title").textContent = `Clips of ${machine().name}`;
    $("score-label").hidden = data.scores.length < 2;
    $("seed-label").hidden = data.seeds.length < 2;
    state.clip = firstClip();
    drawAll();
    drawClip();
    let width = $("clips").clientWidth;
    new ResizeObserver(() => {
      if ($("clips").clientWidth === width) return;
      width = $("clips").clientWidth;
      drawRoc();
      drawHistogram();
      if (shown) document.querySelector("#clip .profile")?.replaceWith(profile(shown.payload));
    }).observe($("clips"));
  }
  // The clips' data follow this script, so that the tables appear first.
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
