// The overview refreshes itself: every 2 seconds, while the tab is visible and while a run is on.
"use strict";
(() => {
  const place = document.querySelector("[data-live]");
  const status = document.getElementById("freshness");
  const everyMs = 2000;
  let timer = null;
  let answered = new Date();

  const on = () => place.querySelector("[data-on]")?.dataset.on === "1";
  const say = (text) => { if (status.textContent !== text) status.textContent = text; };

  const key = (element) => element && place.contains(element) && (element.id || element.getAttribute("href") || element.getAttribute("aria-label"));

  const show = (html) => {
    const focused = key(document.activeElement);
    const told = document.createElement("template");
    told.innerHTML = html;
    for (const part of told.content.querySelectorAll("[data-part]")) {
      place.querySelector(`[data-part="${part.dataset.part}"]`).replaceChildren(...part.childNodes);
    }
    if (focused) {
      const same = [...place.querySelectorAll("a, [tabindex]")].find((one) => key(one) === focused);
      if (same) same.focus({ preventScroll: true });
    }
  };

  const look = async () => {
    timer = null;
    const controller = new AbortController();
    const late = setTimeout(() => controller.abort(), 10000);
    try {
      const answer = await fetch(place.dataset.live, { signal: controller.signal, headers: { accept: "text/html" } });
      if (!answer.ok) throw new Error(String(answer.status));
      const html = await answer.text();
      if (!window.getSelection().toString()) show(html);
      answered = new Date();
      say(on() ? "Refreshes itself every 2 seconds." : "No run is on: this page stands still until you come back to it.");
      document.dispatchEvent(new CustomEvent("ledger:looked"));
    } catch {
      say(`No answer since ${answered.toLocaleTimeString()}. What is shown may be old.`);
    } finally {
      clearTimeout(late);
      plan();
    }
  };

  const plan = () => {
    if (timer === null && on() && document.visibilityState === "visible") timer = setTimeout(look, everyMs);
  };

  document.addEventListener("visibilitychange", () => {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    if (document.visibilityState === "visible") look();
  });
  say(on() ? "Refreshes itself every 2 seconds." : "No run is on: this page stands still until you come back to it.");
  plan();
})();
