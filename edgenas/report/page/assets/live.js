"use strict";
/* Asks the server of this page for its next state, and puts that in the place of this one. What is unfolded, sorted and
   chosen stays so, and so does the focus; while a chart is pointed at or enlarged nothing changes. */
(() => {
  const note = () => document.getElementById("live");
  let fresh = null, tag = note().dataset.tag;

  const busy = () => [...document.querySelectorAll(".plot")].some(plot => {
    const chart = plot.edgenas;
    return chart && (!chart.tip.hidden || !chart.reset.hidden);
  }) || !getSelection().isCollapsed;

  // Things are known again by their heading and their words; numbers in them change.
  const plain = element => (element ? element.textContent : "").replace(/[0-9.,]+/g, "");
  const within = (element, words) => `${plain((element.closest("section") || document.body).firstElementChild)}|${words}`;
  const called = folded => within(folded, plain(folded.querySelector("summary")));
  const captioned = table => within(table, plain(table.caption));
  const reached = "summary, button, select, a, .plot, pre, .wide";
  const labelled = element => within(element, [element.tagName, element.closest("table") && plain(element.closest("table").caption),
    element.getAttribute("aria-label") || (element.tagName === "SELECT" ? "" : element.textContent)].join("|").replace(/[0-9.,]+/g, ""));

  // By their names, each with how often it was there before: several may be called the same.
  function named(elements, name) {
    const found = new Map(), counts = new Map();
    for (const each of elements) {
      const base = name(each), count = counts.get(base) || 0;
      counts.set(base, count + 1);
      found.set(`${base}|${count}`, each);
    }
    return found;
  }
  const tables = () => named(document.querySelectorAll("table.sortable"), captioned);
  const sorting = table => [...table.tHead.rows[0].cells].find(each => each.hasAttribute("aria-sort"));
  function sortAgain(table, {title, direction, count}) {
    const head = [...table.tHead.rows[0].cells].find(each => each.textContent === title);
    for (let clicks = 0; head && head.getAttribute("aria-sort") !== direction && clicks < 2; clicks++) head.querySelector("button").click();
    const more = table.closest(".rows") && table.closest(".rows").querySelector(".more");
    while (more && !more.hidden && table.tBodies[0].rows.length < count) more.click();
  }

  function replace() {
    const unfolded = new Set([...document.querySelectorAll("details[open]")].map(called));
    const chosen = new Map([...document.querySelectorAll(".chart select")].map(each => [each.closest(".chart").dataset.chart, each.value]));
    const hidden = [...document.querySelectorAll(".key[aria-pressed=false]")].map(each => [each.closest(".chart").dataset.chart, each.textContent]);
    const kept = new Map([...document.querySelectorAll(".chosen")].map(each => [each.closest(".chart").dataset.chart, [...each.childNodes]]));
    const sorted = new Map();
    for (const [name, table] of tables()) {
      const head = sorting(table);
      if (head) sorted.set(name, {title: head.textContent, direction: head.getAttribute("aria-sort"), count: table.tBodies[0].rows.length});
    }
    const focused = [...named(document.querySelectorAll(reached), labelled)].find(([, each]) => each === document.activeElement);
    const {scrollX, scrollY} = window;
    document.title = fresh.title;
    for (const part of ["main", "#data"]) document.querySelector(part).replaceWith(document.adoptNode(fresh.querySelector(part)));
    fresh = null;
    document.dispatchEvent(new Event("edgenas:replaced"));
    for (const each of document.querySelectorAll("details")) {
      each.open = unfolded.has(called(each));
      each.dispatchEvent(new Event("toggle"));  // the browser's own comes later
    }
    for (const [name, table] of tables()) if (sorted.has(name)) sortAgain(table, sorted.get(name));
    for (const [name, value] of chosen) {
      const choice = document.querySelector(`[data-chart=${name}] select`);
      if (choice && choice.value !== value && value < choice.options.length) {
        choice.value = value;
        choice.dispatchEvent(new Event("change"));
      }
    }
    for (const [name, text] of hidden) {
      const key = [...document.querySelectorAll(`[data-chart=${name}] .key`)].find(each => each.textContent === text);
      if (key) key.click();
    }
    for (const [name, nodes] of kept) {
      const place = document.querySelector(`[data-chart=${name}] .chosen`);
      if (place) place.append(...nodes);
    }
    const again = focused && named(document.querySelectorAll(reached), labelled).get(focused[0]);
    if (again) again.focus({preventScroll: true});
    scrollTo({left: scrollX, top: scrollY, behavior: "instant"});
  }

  // The next state, null where this is still it.
  async function asked() {
    const answer = await fetch(location.pathname, {headers: {"If-None-Match": tag}, cache: "no-store"});
    if (answer.status === 304) return null;
    if (answer.status !== 200) throw new Error(`the server refuses: ${answer.status}`);
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }
  async function ask() {
    if (!document.hidden) {
      const next = await asked().catch(() => undefined);
      if (next) { fresh = next; tag = next.getElementById("live").dataset.tag; }
      if (fresh && !busy()) replace();
      if (next === undefined) note().textContent = "edgenas watch has ended; this is what it showed last.";
    }
    setTimeout(ask, Number(note().dataset.poll));
  }
  setTimeout(ask, Number(note().dataset.poll));
  document.addEventListener("visibilitychange", () => { if (!document.hidden && fresh && !busy()) replace(); });
})();
