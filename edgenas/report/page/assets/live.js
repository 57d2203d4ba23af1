"use strict";
/* Asks the server of this page for its next state, and puts that in the place of this one. What is unfolded and chosen
   stays so; while a chart is pointed at or enlarged nothing changes. */
(() => {
  const note = () => document.getElementById("live");
  let fresh = null, tag = note().dataset.tag;

  const busy = () => [...document.querySelectorAll(".plot")].some(plot => {
    const chart = plot.edgenas;
    return chart && (!chart.tip.hidden || !chart.reset.hidden);
  }) || !getSelection().isCollapsed;

  // What is folded is known again by its heading and its words; numbers in them change.
  const called = folded => [folded.closest("section").firstElementChild, folded.querySelector("summary")]
    .map(each => each.textContent.replace(/[0-9.,]+/g, "")).join("|");

  function replace() {
    const unfolded = new Set([...document.querySelectorAll("details[open]")].map(called));
    const chosen = new Map([...document.querySelectorAll(".chart select")].map(each => [each.closest(".chart").dataset.chart, each.value]));
    const hidden = [...document.querySelectorAll(".key[aria-pressed=false]")].map(each => [each.closest(".chart").dataset.chart, each.textContent]);
    const {scrollX, scrollY} = window;
    document.title = fresh.title;
    for (const part of ["main", "#data"]) document.querySelector(part).replaceWith(document.adoptNode(fresh.querySelector(part)));
    fresh = null;
    document.dispatchEvent(new Event("edgenas:replaced"));
    for (const each of document.querySelectorAll("details")) each.open = unfolded.has(called(each));
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
