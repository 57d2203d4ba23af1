"use strict";
/* Draws the charts of a report, lets its tables be sorted, and shows what is pointed at. All it knows is the block of
   JSON in the page; texts go into the page as texts, never as HTML. */
(() => {
  let data;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const PRINT_WIDTH = 660, REACH = 26, AT_ONCE = 100;
  let printing = false;

  // The colours of Okabe and Ito, which the colour-blind tell apart; each role has a sign of its own too.
  const ROLES = {
    over: {light: "#7a838d", dark: "#8a949f", sign: "cross", size: 3},
    within: {light: "#0072b2", dark: "#56b4e9", sign: "circle", size: 3},
    front: {light: "#c04f00", dark: "#f09c4a", sign: "diamond", size: 5},
    winner: {light: "#d55e00", dark: "#f0b030", sign: "star", size: 9, width: 2.5},
    baseline: {light: "#00805c", dark: "#35c79a", sign: "square", size: 6},
    first: {light: "#0072b2", dark: "#56b4e9", sign: "circle", size: 3},
    second: {light: "#c04f00", dark: "#f09c4a", sign: "diamond", size: 4},
    third: {light: "#00805c", dark: "#35c79a", sign: "square", size: 3},
  };
  const isDark = () => dark.matches && !printing;
  const theme = () => isDark()
    ? {ink: "#e7eaee", soft: "#a3adb8", line: "#2b3138"}
    : {ink: "#1b1f24", soft: "#59636e", line: "#e3e7eb"};
  const colour = role => ROLES[role][isDark() ? "dark" : "light"];

  function make(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  const shown = value => value === null || value === undefined ? "-"
    : typeof value !== "number" ? String(value)
    : Math.abs(value) >= 1e5 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(5)));
  const quoted = word => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;

  function sign(context, kind, x, y, size) {
    context.beginPath();
    if (kind === "circle") context.arc(x, y, size, 0, 2 * Math.PI);
    else if (kind === "square") context.rect(x - size, y - size, 2 * size, 2 * size);
    else if (kind === "diamond") {
      context.moveTo(x, y - size); context.lineTo(x + size, y); context.lineTo(x, y + size); context.lineTo(x - size, y);
      context.closePath();
    } else if (kind === "star") {
      for (let i = 0; i < 10; i++) {
        const angle = Math.PI * (i / 5 - 0.5), reach = i % 2 ? 0.42 * size : size;
        context.lineTo(x + reach * Math.cos(angle), y + reach * Math.sin(angle));
      }
      context.closePath();
    } else {
      context.moveTo(x - size, y - size); context.lineTo(x + size, y + size);
      context.moveTo(x - size, y + size); context.lineTo(x + size, y - size);
    }
  }
  function paint(context, role, x, y, scale) {
    const {sign: kind, size} = ROLES[role];
    sign(context, kind, x, y, size * scale);
    if (kind === "cross") context.stroke(); else context.fill();
    if (kind === "star") { context.strokeStyle = theme().ink; context.stroke(); }
  }

  // The points of a series that have both numbers: xs, ys, and which they are.
  function valuesOf(chart, series, axis) {
    const table = data.tables[chart.table];
    const xs = [], ys = [], at = [];
    const take = (x, y, i) => { if (x !== null && y !== null) { xs.push(x); ys.push(y); at.push(i); } };
    if (series.rows) {
      const x = table.data[axis.column], y = table.data[chart.y.column];
      for (const row of series.rows) take(x[row], y[row], row);
      if (series.kind !== "dots") {
        const order = xs.map((_, i) => i).sort((a, b) => xs[a] - xs[b] || ys[a] - ys[b]);
        return {xs: order.map(i => xs[i]), ys: order.map(i => ys[i]), at: order.map(i => at[i])};
      }
    } else series.x.forEach((x, i) => take(x, series.y[i], i));
    return {xs, ys, at};
  }

  // 16 bits a value, from the lowest to the highest.
  function unpacked(packed) {
    const view = new DataView(Uint8Array.from(atob(packed.values), each => each.charCodeAt(0)).buffer);
    const width = (packed.high - packed.low) / 65535;
    return Float64Array.from({length: view.byteLength / 2}, (_, i) => packed.low + width * view.getUint16(2 * i, true));
  }

  function bounds(chart, axis, drawn, cloud) {
    const box = {x: [Infinity, -Infinity], y: [Infinity, -Infinity]};
    const widen = (key, value) => {
      if (value < box[key][0]) box[key][0] = value;
      if (value > box[key][1]) box[key][1] = value;
    };
    for (const {values, series} of drawn) {
      const half = series.kind === "bars" ? series.width / 2 : 0;
      for (const x of values.xs) { widen("x", x - half); widen("x", x + half); }
      for (const y of values.ys) widen("y", y);
      if (series.kind === "bars") widen("y", 0);
    }
    if (cloud) for (const key of ["x", "y"]) { widen(key, cloud[key].low); widen(key, cloud[key].high); }
    // A limit far off would squash all else; it is marked at the edge then.
    for (const limit of limitsOf(chart, axis)) {
      const key = limit.across ? "y" : "x", [low, high] = box[key];
      const room = 2 * (high - low) + 0.02 * Math.abs(high);
      if (!(low <= high) || (limit.at > low - room && limit.at < high + room)) widen(key, limit.at);
    }
    if (axis.zero) widen("x", 0);
    if (chart.y.zero) widen("y", 0);
    if (chart.y.names) { widen("y", -0.6); widen("y", chart.y.names.length - 0.4); }
    for (const key of ["x", "y"]) {
      let [low, high] = box[key];
      if (!(low <= high)) [low, high] = [0, 1];
      const pad = (high - low) * 0.04 || Math.abs(high) * 0.05 || 1;
      const atZero = low === 0 && (key === "x" ? axis.zero : chart.y.zero);
      const bars = chart.series.some(each => each.kind === "bars");
      box[key] = chart.y.names && key === "y" ? [low, high] : [atZero ? (bars ? 0 : -pad / 4) : low - pad, high + pad];
    }
    return box;
  }
  const limitsOf = (chart, axis) =>
    (chart.limits || []).filter(each => each.column === undefined || each.column === axis.column);

  class Chart {
    constructor(holder, spec) {
      this.holder = holder; this.spec = spec; this.axis = spec.xs[0]; this.hidden = new Set(); this.place = -1;
      const many = spec.series.filter(each => each.kind !== "bars");
      const controls = make("div", {class: "controls"});
      if (spec.xs.length > 1) {
        const choice = make("select", {}, ...spec.xs.map((each, i) => make("option", {value: i}, each.label)));
        choice.addEventListener("change", () => { this.axis = spec.xs[choice.value]; this.forget(); this.build(); });
        controls.append(make("label", {}, "against ", choice));
      }
      this.keys = [];
      const legend = spec.legend || (many.length > 1 ? spec.series.map(each => [each.role, each.name]) : []);
      for (const [role, name] of legend) {
        const canvas = make("canvas", {width: 36, height: 36, "aria-hidden": "true"});
        const key = make("button", {type: "button", class: "key", "aria-pressed": "true"}, canvas, name);
        key.addEventListener("click", () => {
          this.hidden.has(role) ? this.hidden.delete(role) : this.hidden.add(role);
          key.setAttribute("aria-pressed", String(!this.hidden.has(role)));
          this.forget(); this.build();
        });
        this.keys.push([role, canvas]);
        controls.append(key);
      }
      this.reset = make("button", {type: "button", hidden: ""}, "Show all");
      this.reset.addEventListener("click", () => this.zoom());
      controls.append(this.reset);
      this.plot = make("div", {class: "plot", tabindex: "0", role: "group", "aria-roledescription": "chart",
        "aria-label": `${spec.title}. ${spec.alternative} The numbers are in the list below.`});
      this.plot.edgenas = this;
      this.chosen = make("div", {class: "chosen", "aria-live": "polite"});
      this.tip = make("div", {class: "tip", hidden: ""});
      this.ring = make("div", {hidden: "", style: "position:absolute;width:16px;height:16px;margin:-8px;border:2px solid;border-radius:50%;pointer-events:none"});
      if (controls.childElementCount > 1) holder.append(controls); else controls.hidden = true;
      if (controls.hidden) holder.append(this.reset);
      holder.append(this.plot, this.chosen);
      this.plot.addEventListener("keydown", event => this.step(event));
      this.build();
      this.width = holder.clientWidth;
      new ResizeObserver(() => {
        if (!printing && this.u && Math.abs(holder.clientWidth - this.width) > 3) {
          this.width = holder.clientWidth;
          this.forget(); this.build();
        }
      }).observe(holder);
    }

    build() {
      const {spec, axis} = this, look = theme();
      this.drawn = spec.series.filter(each => !this.hidden.has(each.role))
        .map(series => ({series, values: valuesOf(spec, series, axis)}));
      this.cloud = spec.cloud && spec.cloud[axis.column] && !this.hidden.has("over")
        ? {x: spec.cloud[axis.column], y: spec.cloud[spec.y.column]} : null;
      this.box = bounds(spec, axis, this.drawn, this.cloud);
      this.points = this.drawn.flatMap(({series, values}) =>
        values.xs.map((x, i) => ({x, y: values.ys[i], at: values.at[i], series})));
      this.points.sort((a, b) => a.x - b.x || a.y - b.y);
      for (const [role, canvas] of this.keys) {
        const context = canvas.getContext("2d");
        context.clearRect(0, 0, 36, 36);
        context.fillStyle = context.strokeStyle = colour(role); context.lineWidth = 3;
        paint(context, role, 18, 18, Math.min(2.4, 14 / ROLES[role].size));
      }
      const width = printing ? PRINT_WIDTH : Math.max(240, this.holder.clientWidth);
      const names = spec.y.names;
      const height = names ? 90 + 28 * names.length : width < 520 ? 280 : spec.table ? 420 : 300;
      const font = "13px system-ui, sans-serif";
      const common = {stroke: look.ink, font, labelFont: `600 ${font}`, grid: {stroke: look.line, width: 1},
        ticks: {stroke: look.line, size: 5}, gap: 4};
      const fixed = {time: false, auto: true};
      const x = {...common, label: axis.label, labelSize: 22, size: 34, space: 60};
      if (axis.whole) x.incrs = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 100000, 1000000];
      const y = {...common, labelSize: 22, size: (u, values, i, cycle) => {
        if (cycle > 1) return u.axes[i]._size;
        const longest = (values || []).reduce((a, b) => String(b).length > a.length ? String(b) : a, "");
        u.ctx.font = u.axes[i].font[0];
        return Math.ceil(17 + u.ctx.measureText(longest).width / devicePixelRatio);
      }};
      if (spec.y.label) y.label = spec.y.label;
      if (names) {
        y.splits = () => names.map((_, i) => i);
        y.values = () => names.map(each => each.length > 24 ? `${each.slice(0, 23)}\u2026` : each);
        y.grid = {show: false};
      }
      if (this.u) this.u.destroy();
      this.u = new uPlot({
        mode: 2, width, height, legend: {show: false}, padding: [10, 14, 0, 0],
        cursor: {points: {show: false}, x: false, y: false, drag: {x: true, y: true, uni: 20, dist: 6},
          bind: {dblclick: () => () => this.zoom()}},
        scales: {x: {...fixed, range: () => this.box.x}, y: {...fixed, range: () => this.box.y}},
        axes: [x, y],
        series: [null, ...this.drawn.map(() => ({facets: [{scale: "x", auto: true}, {scale: "y", auto: true}],
          paths: () => null, points: {show: false}}))],
        hooks: {
          draw: [u => this.draw(u)],
          setCursor: [u => this.point(u)],
          setSelect: [u => { if (u.select.width > 0) this.reset.hidden = false; }],
        },
      }, [null, ...this.drawn.map(({values}) => [values.xs, values.ys])], this.plot);
      this.plot.append(this.tip);
      this.u.over.append(this.ring);
      this.u.over.addEventListener("click", () => { if (this.near) this.choose(this.near); });
      this.u.over.addEventListener("mouseleave", () => this.forget());
    }

    zoom() {
      this.reset.hidden = true;
      this.u.batch(() => {
        this.u.setScale("x", {min: this.box.x[0], max: this.box.x[1]});
        this.u.setScale("y", {min: this.box.y[0], max: this.box.y[1]});
      });
      this.forget();
    }

    draw(u) {
      const context = u.ctx, {left, top, width, height} = u.bbox, ratio = devicePixelRatio, {x, y} = u.scales;
      const px = value => left + (value - x.min) / (x.max - x.min) * width;
      const py = value => top + (1 - (value - y.min) / (y.max - y.min)) * height;
      context.save();
      context.beginPath(); context.rect(left, top, width, height); context.clip();
      if (this.cloud) this.drawCloud(u, context, px, py, ratio);
      for (const {series, values} of this.drawn) {
        const {xs, ys} = values;
        context.fillStyle = context.strokeStyle = colour(series.role);
        if (series.kind === "bars") {
          for (let i = 0; i < xs.length; i++) {
            const from = px(xs[i] - series.width / 2), to = px(xs[i] + series.width / 2);
            context.fillRect(from, py(ys[i]), Math.max(1, to - from - ratio), py(0) - py(ys[i]));
          }
          continue;
        }
        if (series.kind !== "dots") {
          context.lineWidth = (ROLES[series.role].width || 1.75) * ratio;
          context.beginPath();
          for (let i = 0; i < xs.length; i++) {
            if (i && series.kind === "steps") context.lineTo(px(xs[i]), py(ys[i - 1]));
            context.lineTo(px(xs[i]), py(ys[i]));
          }
          context.stroke();
        }
        if (series.kind !== "dots" && !series.signs) continue;
        context.lineWidth = 1.25 * ratio;
        context.globalAlpha = xs.length > 300 && series.kind === "dots" ? 0.6 : 1;
        for (let i = 0; i < xs.length; i++) {
          context.strokeStyle = colour(series.role);
          paint(context, series.role, px(xs[i]), py(ys[i]), ratio);
        }
        context.globalAlpha = 1;
      }
      context.restore();
      this.drawLimits(u, context, px, py, ratio);
    }

    // Point by point 100,000 take ten times as long; here each darkens its pixels.
    drawCloud(u, context, px, py, ratio) {
      const [xs, ys] = ["x", "y"].map(key => this.cloud[key].unpacked ||= unpacked(this.cloud[key]));
      const {left, top, width, height} = u.bbox, wide = Math.ceil(width), high = Math.ceil(height);
      const image = context.createImageData(wide, high), pixels = image.data, size = Math.ceil(1.5 * ratio);
      const [red, green, blue] = colour("over").match(/[0-9a-f]{2}/g).map(each => parseInt(each, 16));
      for (let i = 0; i < xs.length; i++) {
        const x = Math.round(px(xs[i]) - left), y = Math.round(py(ys[i]) - top);
        if (x < 0 || y < 0 || x + size > wide || y + size > high) continue;
        for (let row = y; row < y + size; row++) for (let at = 4 * (row * wide + x), to = at + 4 * size; at < to; at += 4) {
          pixels[at] = red; pixels[at + 1] = green; pixels[at + 2] = blue;
          pixels[at + 3] += (255 - pixels[at + 3]) * 0.35;
        }
      }
      const canvas = make("canvas", {width: wide, height: high});
      canvas.getContext("2d").putImageData(image, 0, 0);
      context.drawImage(canvas, left, top);
    }

    drawLimits(u, context, px, py, ratio) {
      const {left, top, width, height} = u.bbox, look = theme();
      context.save();
      context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
      context.textBaseline = "top";
      context.textAlign = "left";
      let line = 0;
      for (const limit of limitsOf(this.spec, this.axis)) {
        const at = limit.across ? py(limit.at) : px(limit.at);
        context.strokeStyle = context.fillStyle = limit.quiet ? look.soft : look.ink;
        context.lineWidth = 1.5 * ratio;
        context.setLineDash(limit.quiet ? [2 * ratio, 3 * ratio] : [7 * ratio, 4 * ratio]);
        const before = limit.across ? at > top + height : at < left, after = limit.across ? at < top : at > left + width;
        const arrow = limit.across ? (after ? " \u2191" : " \u2193") : after ? " \u2192" : " \u2190";
        const label = before || after ? limit.label + arrow : limit.label, wide = context.measureText(label).width;
        if (!before && !after) {
          context.beginPath();
          if (limit.across) { context.moveTo(left, at); context.lineTo(left + width, at); }
          else { context.moveTo(at, top); context.lineTo(at, top + height); }
          context.stroke();
        }
        const spot = before || after
          ? [before && !limit.across ? left + 5 * ratio : left + width - wide - 5 * ratio,
            limit.across && before ? top + height - 16 * ratio : top + (3 + 15 * line++) * ratio]
          : limit.across ? [left + width - wide - 5 * ratio, at - 15 * ratio < top ? at + 3 * ratio : at - 15 * ratio]
          : [at + wide + 10 * ratio > left + width ? at - wide - 5 * ratio : at + 5 * ratio, top + (3 + 15 * line++) * ratio];
        context.save();
        context.setLineDash([]);
        context.fillStyle = isDark() ? "rgb(20 23 27/.8)" : "rgb(255 255 255/.8)";
        context.fillRect(spot[0] - 2 * ratio, spot[1] - ratio, wide + 4 * ratio, 14 * ratio);
        context.restore();
        context.fillText(label, spot[0], spot[1]);
      }
      context.restore();
    }

    spot(point) { return [this.u.valToPos(point.x, "x"), this.u.valToPos(point.y, "y")]; }

    point(u) {
      const {left, top} = u.cursor;
      if (left === undefined || left < 0) return this.forget();
      let best = null, nearest = REACH * REACH;
      const {x, y} = u.scales, wide = u.over.clientWidth, high = u.over.clientHeight;
      const sx = wide / (x.max - x.min), sy = high / (y.max - y.min);
      for (const each of this.points) {
        const dx = (each.x - x.min) * sx - left, dy = high - (each.y - y.min) * sy - top;
        let away = each.series.kind === "bars" ? (Math.abs(dx) <= each.series.width * sx / 2 ? 0 : Infinity) : dx * dx + dy * dy;
        if (each.series.role === "winner" || each.series.role === "baseline" || each.series.role === "front") away *= 0.5;
        if (away < nearest) { nearest = away; best = each; }
      }
      best ? this.show(best) : this.forget();
    }

    said(point) {
      const {spec, axis} = this, {series} = point;
      if (!series.rows) {
        const lines = [series.texts ? series.texts[point.at] : series.name, `${axis.label}: ${shown(point.x)}`];
        if (!spec.y.names) lines.push(`${spec.y.label}: ${shown(point.y)}`);
        return {lines, command: ""};
      }
      const table = data.tables[spec.table], lines = [];
      table.columns.forEach((column, i) => {
        const value = table.data[i][point.at];
        if (value !== null && value !== "") lines.push(column.title === "architecture" ? shown(value) : `${column.title}: ${shown(value)}`);
      });
      return {lines, command: commandOf(table, point.at)};
    }

    show(point) {
      if (this.near === point && !this.tip.hidden) return;
      this.near = point;
      const {lines, command} = this.said(point);
      this.tip.replaceChildren(...lines.map(each => make("div", {}, each)));
      if (command) this.tip.append(make("code", {}, command));
      this.tip.hidden = false;
      this.ring.hidden = false;
      const [left, top] = this.spot(point);
      this.ring.style.left = `${left}px`; this.ring.style.top = `${top}px`; this.ring.style.color = theme().ink;
      const wide = this.plot.clientWidth, own = this.tip.offsetWidth, over = this.u.over;
      const x = left + over.offsetLeft;
      this.tip.style.left = `${Math.max(0, Math.min(x + 14 + own > wide ? x - own - 14 : x + 14, wide - own))}px`;
      const y = top + over.offsetTop;
      this.tip.style.top = `${Math.max(0, y + 12 + this.tip.offsetHeight > this.plot.clientHeight ? y - this.tip.offsetHeight - 12 : y + 12)}px`;
    }

    forget() { this.near = null; this.tip.hidden = true; this.ring.hidden = true; }

    choose(point) {
      const {lines, command} = this.said(point);
      this.chosen.replaceChildren(make("p", {}, lines.join("; ")));
      if (command) this.chosen.append(make("pre", {tabindex: "0", "aria-label": "command"}, make("code", {}, command)));
    }

    step(event) {
      const moves = {ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity};
      if (event.key === "Escape") return this.forget();
      if (!(event.key in moves) || !this.points.length) return;
      event.preventDefault();
      const last = this.points.length - 1;
      this.place = Math.min(last, Math.max(0, this.place + moves[event.key]));
      this.show(this.points[this.place]);
      this.choose(this.points[this.place]);
    }
  }

  function commandOf(table, row) {
    if (!table.command || row >= table.data[0].length - (table.stock || 0)) return "";
    return table.command + quoted(table.data[table.columns.length - 1][row]);
  }

  // Tables.
  function compare(a, b) {
    if (a === b) return 0;
    if (a === null) return 1;
    if (b === null) return -1;
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", {numeric: true});
  }
  function ordered(values, down) {
    const order = values.map((_, i) => i);
    return order.sort((a, b) => values[a] === null || values[b] === null || !down
      ? compare(values[a], values[b]) || a - b : compare(values[b], values[a]) || a - b);
  }
  function cellValue(cell) {
    const text = cell.textContent.trim();
    if (text === "-" || text === "") return null;
    const number = Number(text.replace(/,/g, "").replace(/ %$/, ""));
    return Number.isNaN(number) ? text : number;
  }
  function sortable(heads, sort) {
    heads.forEach((head, i) => {
      const button = make("button", {type: "button"}, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending"
          || (head.getAttribute("aria-sort") === null && head.classList.contains("n"));
        heads.forEach(each => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(i, down);
      });
    });
  }
  function sortTable(table) {
    const body = table.tBodies[0];
    sortable([...table.tHead.rows[0].cells], (column, down) => {
      const rows = [...body.rows];
      body.append(...ordered(rows.map(row => cellValue(row.cells[column])), down).map(i => rows[i]));
    });
  }
  function fillRows(holder) {
    const table = data.tables[holder.dataset.table], total = table.data[0].length;
    let order = ordered(table.data[1], true), count = AT_ONCE;
    const heads = table.columns.map(each => make("th", {scope: "col", ...(each.numeric ? {class: "n"} : {})}, each.title));
    if (table.command) heads.push(make("th", {scope: "col"}, "command"));
    const body = make("tbody"), more = make("button", {type: "button", class: "more"});
    const caption = holder.dataset.caption;
    function fill() {
      body.replaceChildren(...order.slice(0, count).map(row => {
        const cells = table.columns.map((each, i) => make("td", each.numeric ? {class: "n"} : {}, shown(table.data[i][row])));
        if (table.command) cells.push(make("td", {}, make("code", {}, commandOf(table, row))));
        return make("tr", {}, ...cells);
      }));
      more.hidden = count >= total;
      more.textContent = `Show ${Math.min(5 * AT_ONCE, total - count).toLocaleString("en")} more of ${total.toLocaleString("en")}`;
    }
    more.addEventListener("click", () => { count += 5 * AT_ONCE; fill(); });
    const made = make("table", {class: "sortable"}, make("caption", {}, caption), make("thead", {}, make("tr", {}, ...heads)), body);
    holder.append(make("div", {class: "wide", tabindex: "0", role: "region", "aria-label": caption}, made), more);
    sortable(heads.slice(0, table.columns.length), (column, down) => { order = ordered(table.data[column], down); fill(); });
    heads[1].setAttribute("aria-sort", "descending");
    fill();
  }

  let charts = [], waiting = [], turn = 0;
  function redraw() { charts.forEach(chart => { chart.forget(); chart.build(); }); }
  const draw = holder => charts.push(new Chart(holder, data.charts[holder.dataset.chart]));
  function next() {
    const holder = waiting.shift();
    if (holder) { draw(holder); turn = setTimeout(next); }
    else { document.documentElement.dataset.drawn = "yes"; performance.mark("drawn"); }
  }
  // Again where the page was given other content: what was drawn before is gone with its place.
  function start(at_once) {
    clearTimeout(turn);
    charts.forEach(chart => chart.u.destroy());
    data = JSON.parse(document.getElementById("data").textContent);
    charts = [];
    document.querySelectorAll("table.sortable").forEach(sortTable);
    document.querySelectorAll(".rows").forEach(holder => {
      const folded = holder.closest("details");
      folded.addEventListener("toggle", () => { if (folded.open && !holder.childElementCount) fillRows(holder); });
    });
    waiting = [...document.querySelectorAll(".chart")];
    if (at_once) while (waiting.length) draw(waiting.shift());
    next();
  }
  dark.addEventListener("change", redraw);
  addEventListener("beforeprint", () => { printing = true; while (waiting.length) draw(waiting.shift()); redraw(); });
  addEventListener("afterprint", () => { printing = false; redraw(); });
  document.addEventListener("edgenas:replaced", () => start(true));
  start(false);
})();
