// What scrolls sideways can be reached from the keyboard; nothing else becomes a tab stop.
(() => {
  const mark = () => {
    // a formula in a line of text that is wider than the line gets a box of its own
    for (const formula of document.querySelectorAll("main math:not([display=block])")) {
      const line = formula.closest("p, li, td, dd, figcaption, summary");
      if (line && formula.parentElement.className !== "wide" && formula.getBoundingClientRect().width > line.clientWidth) {
        const box = document.createElement("span");
        box.className = "wide";
        formula.replaceWith(box);
        box.append(formula);
      }
    }
    for (const box of document.querySelectorAll(".wide, .scrolls, .equation, pre, .cell-output-display")) {
      if (box.scrollWidth > box.clientWidth + 1) {
        box.tabIndex = 0;
        if (!box.hasAttribute("role")) {
          box.setAttribute("role", "region");
          box.setAttribute("aria-label", "Scrolls sideways");
        }
      } else if (box.getAttribute("aria-label") === "Scrolls sideways") {
        box.removeAttribute("tabindex");
        box.removeAttribute("role");
        box.removeAttribute("aria-label");
      }
    }
  };
  // A link to a definition opens it.
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    let box = target;
    while (box) {
      if (box.tagName === "DETAILS") box.open = true;
      box = box.parentElement;
    }
    if (target) target.scrollIntoView();
  };
  // The sound on a card: one at a time.
  let heard;
  const quiet = () => {
    if (!heard) return;
    const [audio, button] = heard;
    heard = null;
    audio.pause();
    button.ariaPressed = "false";
    button.querySelector("span").textContent = "▶";
  };
  for (const button of document.querySelectorAll("button.hear")) {
    button.addEventListener("click", () => {
      const audio = button.nextElementSibling, again = heard?.[0] === audio;
      quiet();
      if (again) return;
      heard = [audio, button];
      button.ariaPressed = "true";
      button.querySelector("span").textContent = "■";
      audio.onended = quiet;
      audio.currentTime = 0;
      audio.play().catch(quiet);
    });
  }
  // On the map: what a chapter builds on, and what builds on it.
  for (const map of document.querySelectorAll(".home-map")) {
    const ways = [...map.querySelectorAll("[data-way]")].map(e => [e, ...e.dataset.way.split(" ")]);
    const reach = (n, from, to, found = new Set([n])) => {
      for (const w of ways) if (w[from] === n && !found.has(w[to])) reach(w[to], from, to, found.add(w[to]));
      return found;
    };
    const clear = () => {
      map.classList.remove("asked");
      map.querySelectorAll(".on").forEach(e => e.classList.remove("on"));
    };
    for (const node of map.querySelectorAll("[data-node]")) {
      const show = () => {
        clear();
        map.classList.add("asked");
        const before = reach(node.dataset.node, 2, 1), after = reach(node.dataset.node, 1, 2);
        for (const [e, a, b] of ways)
          if ((before.has(a) && before.has(b)) || (after.has(a) && after.has(b))) e.classList.add("on");
        for (const e of map.querySelectorAll("[data-node]"))
          if (before.has(e.dataset.node) || after.has(e.dataset.node)) e.classList.add("on");
      };
      node.addEventListener("mouseenter", show);
      node.addEventListener("focus", show);
      node.addEventListener("mouseleave", clear);
      node.addEventListener("blur", clear);
    }
  }
  addEventListener("hashchange", open);
  addEventListener("resize", mark);
  addEventListener("toggle", mark, true);
  addEventListener("load", () => {
    open();
    mark();
  });
})();
