"use strict";

const KEPT = 240; // scores kept for each machine
const ALARMS = 10;
const RETRY = 1000; // ms
const SVG = "http://www.w3.org/2000/svg";
const STATES = { waiting: "○ waiting", ok: "● ok", alarm: "▲ ALARM",
  above: "△ above threshold", paused: "◌ not judged" };
const LEFT = 44, RIGHT = 12, TOP = 12, BOTTOM = 22; // px around the curve

const cards = new Map();

function number(value) {
  return value === null ? "–" : String(Number(value.toPrecision(4))).replace("-", "−");
}

/** Return a score as text, or the state of a recording that was not judged. */
function reading(score) {
  return score.state === "running" ? number(score.score) : score.state;
}

/** Return whether a recording raised an alarm; without an alarm policy, its score decides. */
function raises(score) {
  if (score.alarm_events === undefined) return score.is_anomaly;
  return score.alarm_events.some((alarm) => alarm.end === null);
}

/** Return the time, with the date if it is not today. */
function clock(seconds) {
  const date = new Date(seconds * 1000);
  const time = date.toLocaleTimeString([], { hour12: false });
  if (date.toDateString() === new Date().toDateString()) return time;
  return `${date.toLocaleDateString([], { month: "short", day: "numeric" })} ${time}`;
}

/** Return a time within a recording, such as 2:03 or 1:02:03. */
function within(seconds) {
  const whole = Math.round(seconds), two = (value) => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60) % 60, rest = two(whole % 60);
  const hours = Math.floor(whole / 3600);
  return hours ? `${hours}:${two(minutes)}:${rest}` : `${minutes}:${rest}`;
}

/** Return an SVG element. */
function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Return an HTML element that contains plain text. */
function html(name, className, text) {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}

/** The card of one machine. */
class Card {
  constructor(name) {
    this.name = name;
    this.scores = [];
    this.alarms = [];
    this.threshold = null;
    this.cursor = null; // index of the selected score
    this.drawing = false;
    this.fetching = false;
    const fragment = document.getElementById("card").content.cloneNode(true);
    this.root = fragment.querySelector(".card");
    this.part(".machine").textContent = name;
    this.root.setAttribute("aria-label", name);
    this.chart = this.part(".chart");
    document.getElementById("machines").append(fragment);
    this.chart.addEventListener("keydown", (event) => this.key(event));
    this.chart.addEventListener("pointermove", (event) => this.point(event));
    this.chart.addEventListener("pointerleave", () => this.read(null));
    this.chart.addEventListener("blur", () => this.read(null));
    new ResizeObserver(() => this.draw()).observe(this.chart);
  }

  part(selector) {
    return this.root.querySelector(selector);
  }

  /** Replace all data whenever the page has connected. */
  reset(machine) {
    this.threshold = machine.threshold;
    this.scores = machine.scores;
    this.alarms = machine.alarms;
    this.cursor = null;
    this.draw();
    if (this.scores.length) this.picture();
  }

  add(score) {
    this.scores.push(score);
    if (this.scores.length > KEPT) {
      this.scores.shift();
      if (this.cursor !== null) this.cursor = Math.max(0, this.cursor - 1);
    }
    if (raises(score)) {
      this.alarms = [...this.alarms, score].slice(-ALARMS);
      document.getElementById("announcement").textContent =
        `Alarm: ${this.name}, score ${number(score.score)}`;
    }
    if (score.state === "running") this.threshold = score.threshold;
    this.draw();
    this.picture();
  }

  get state() {
    if (!this.scores.length) return "waiting";
    const last = this.scores.at(-1);
    if (last.alarm) return "alarm"; // of an alarm policy
    if (last.state !== "running") return "paused";
    if (!last.is_anomaly) return "ok";
    return last.alarm === undefined ? "alarm" : "above";
  }

  /** Draw once before the next frame, however many scores arrive. */
  draw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.drawText();
      this.drawChart();
      this.drawAlarms();
      title();
    });
  }

  drawText() {
    this.root.dataset.state = this.state;
    this.part(".badge").textContent = STATES[this.state];
    const last = this.scores.at(-1);
    if (!last) return;
    this.part(".score").textContent = reading(last);
    this.part(".standing").textContent = !last.alarm ? "" :
      `alarm since ${within(last.alarm.start.seconds)} of ${last.alarm.start.recording}`;
    this.part(".facts").textContent =
      `threshold ${number(last.threshold)}, p ${number(last.p_value)}; ` +
      `${last.name} (${number(last.seconds)} s), ${clock(last.time)}`;
  }

  drawAlarms() {
    const lines = this.alarms.map((alarm) => {
      const line = html("li", "", "");
      line.append(
        html("span", "time", clock(alarm.time)),
        html("span", "name", alarm.name),
        html("span", "value", number(alarm.score)),
      );
      return line;
    });
    if (!lines.length) lines.push(html("li", "none", "none yet"));
    this.part(".alarms").replaceChildren(...lines.reverse());
  }

  /** Return the scales of the chart. */
  scales() {
    const width = this.chart.clientWidth, height = this.chart.clientHeight;
    const values = [...this.scores.map((s) => s.score), this.threshold].filter(
      (value) => value !== null,
    );
    let low = Math.min(...values), high = Math.max(...values);
    const pad = (high - low) * 0.1 || Math.abs(high) * 0.1 || 1;
    low -= pad;
    high += pad;
    const steps = Math.max(this.scores.length - 1, 1);
    const inside = width - LEFT - RIGHT;
    return {
      width, height, low, high,
      x: (index) => LEFT + (this.scores.length > 1 ? (index * inside) / steps : inside),
      y: (value) => height - BOTTOM - ((value - low) / (high - low)) * (height - TOP - BOTTOM),
    };
  }

  drawChart() {
    const { width, height, low, high, x, y } = this.scales();
    if (!width || !Number.isFinite(low)) return;
    this.chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const shapes = [];
    for (const share of [0.1, 0.5, 0.9]) {
      const value = low + share * (high - low);
      shapes.push(
        shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
        shape("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" },
          String(Number(value.toPrecision(3)))),
      );
    }
    if (this.threshold !== null) {
      const at = y(this.threshold);
      shapes.push(shape("line", { class: "threshold", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
    }
    shapes.push(...this.curve(x, y), ...this.times(width, height));
    if (this.cursor !== null) {
      const at = x(this.cursor);
      shapes.push(shape("line", { class: "cursor", x1: at, x2: at, y1: TOP, y2: height - BOTTOM }));
    }
    this.chart.replaceChildren(...shapes);
    this.chart.setAttribute("aria-label", this.summary());
  }

  /** Return the curve, with a gap at each missing score; alarms are triangles. */
  curve(x, y) {
    const shapes = [];
    let path = "", pen = "M";
    this.scores.forEach((score, index) => {
      if (score.score === null) { pen = "M"; return; }
      const across = x(index), up = y(score.score);
      path += `${pen}${across.toFixed(1)},${up.toFixed(1)}`;
      pen = "L";
      if (raises(score)) {
        const corners = `${across - 5},${up + 4} ${across + 5},${up + 4} ${across},${up - 5}`;
        shapes.push(shape("polygon", { class: "alarm", points: corners }));
      } else if (this.scores.length <= 60) {
        shapes.push(shape("circle", { class: "dot", cx: across, cy: up, r: 2.5 }));
      }
    });
    return path ? [shape("path", { class: "scores", d: path }), ...shapes] : shapes;
  }

  times(width, height) {
    if (!this.scores.length) return [];
    const y = height - 6;
    const last = shape("text", { x: width - RIGHT, y, "text-anchor": "end" },
      clock(this.scores.at(-1).time));
    if (this.scores.length === 1) return [last];
    return [shape("text", { x: LEFT, y }, clock(this.scores[0].time)), last];
  }

  summary() {
    const last = this.scores.at(-1);
    if (!last) return `${this.name}: no recording yet`;
    const alarms = this.scores.filter(raises).length;
    return `${this.name}: scores of the last ${this.scores.length} recordings, ` +
      `${alarms} alarms. Latest score ${reading(last)}, threshold ` +
      `${number(this.threshold)}. Use the arrow keys to read individual scores.`;
  }

  /** Select a score: show it as text and mark it. */
  read(index) {
    if (!this.scores.length) index = null;
    this.cursor = index;
    const score = index === null ? null : this.scores[index];
    this.part(".readout").textContent = score === null ? "" :
      `${clock(score.time)}  ${score.name}: ` + (score.state !== "running"
        ? `${score.state}, not judged`
        : `${number(score.score)}, p ${number(score.p_value)}` +
          `${raises(score) ? ", ALARM" : score.is_anomaly ? ", above threshold" : ""}`);
    this.draw();
  }

  key(event) {
    const last = this.scores.length - 1, at = this.cursor;
    const moves = {
      ArrowLeft: at === null ? last : at - 1,
      ArrowRight: at === null ? last : at + 1,
      Home: 0,
      End: last,
      Escape: null,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const to = moves[event.key];
    this.read(to === null ? null : Math.min(Math.max(to, 0), last));
  }

  point(event) {
    const box = this.chart.getBoundingClientRect();
    const inside = box.width - LEFT - RIGHT;
    const share = (event.clientX - box.left - LEFT) / inside;
    const index = Math.round(share * (this.scores.length - 1));
    this.read(Math.min(Math.max(index, 0), this.scores.length - 1));
  }

  /** Fetch the latest spectrogram, one request at a time. */
  async picture() {
    if (this.fetching) { this.again = true; return; }
    this.fetching = true;
    do {
      this.again = false;
      try {
        const answer = await fetch(`spectrogram?machine=${encodeURIComponent(this.name)}`);
        if (answer.ok) this.drawPicture(await answer.json());
      } catch {
        break; // the connection is lost; the event source reports it
      }
    } while (this.again);
    this.fetching = false;
  }

  drawPicture({ columns, mels, data, seconds, top, range }) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const canvas = this.part(".spectrogram");
    canvas.width = columns;
    canvas.height = mels;
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, mels);
    for (let column = 0; column < columns; column++) {
      for (let mel = 0; mel < mels; mel++) {
        const at = 4 * ((mels - 1 - mel) * columns + column);
        const colour = COLOURS[bytes[column * mels + mel]];
        image.data.set(colour, at);
      }
    }
    context.putImageData(image, 0, 0);
    this.part(".begin").textContent = "0 s";
    this.part(".levels").textContent =
      `low frequencies at the bottom, ${number(Math.round(top - range))} to ${number(Math.round(top))} dB`;
    this.part(".end").textContent = `${number(seconds)} s`;
    canvas.setAttribute("aria-label",
      `${this.name}: spectrogram of ${number(seconds)} s, loudest ${number(top)} dB`);
  }
}

/** Colours from dark to bright, with even steps in brightness. */
const COLOURS = (() => {
  const stops = [[8, 8, 20], [66, 15, 109], [147, 38, 103], [221, 81, 58], [251, 165, 10], [252, 255, 164]];
  return Array.from({ length: 256 }, (_, value) => {
    const at = (value / 255) * (stops.length - 1);
    const below = Math.min(Math.floor(at), stops.length - 2);
    const share = at - below;
    return [0, 1, 2].map((i) => stops[below][i] * (1 - share) + stops[below + 1][i] * share)
      .concat(255);
  });
})();

function title() {
  const alarms = [...cards.values()].filter((card) => card.state === "alarm").length;
  document.title = alarms ? `▲ ${alarms} in alarm - Live scores` : "Live scores";
}

function showConnection(text, isLive) {
  const element = document.getElementById("connection");
  element.textContent = text;
  element.toggleAttribute("data-live", isLive);
}

function connect() {
  const source = new EventSource("events");
  source.addEventListener("snapshot", (event) => {
    showConnection("live", true);
    for (const machine of JSON.parse(event.data).machines) {
      if (!cards.has(machine.machine)) cards.set(machine.machine, new Card(machine.machine));
      cards.get(machine.machine).reset(machine);
    }
  });
  source.addEventListener("score", (event) => {
    const score = JSON.parse(event.data);
    cards.get(score.machine)?.add(score);
  });
  source.addEventListener("error", () => {
    showConnection("connection lost: reconnecting", false);
    // The browser reconnects by itself, but not after a refusal.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY);
  });
}

connect();
