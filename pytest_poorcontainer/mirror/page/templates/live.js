// Live progress: the page works without it. Text goes in as text, never as markup.
"use strict";
(function () {
  if (!window.EventSource) return;
  const events = new EventSource("events");
  events.onmessage = function (message) {
    const state = JSON.parse(message.data);
    if (state.reload) { location.reload(); return; }
    for (const name of Object.keys(state.running)) {
      const cell = document.querySelector('[data-mirror="' + CSS.escape(name) + '"] .progress');
      if (cell) cell.textContent = state.running[name];
      const bar = document.querySelector('[data-mirror="' + CSS.escape(name) + '"] progress');
      if (bar && state.share[name] !== null) bar.value = state.share[name];
    }
    const heart = document.getElementById("heart");
    if (heart) heart.textContent = "live";
  };
})();
