// A blind comparison: two estimates of the same excerpt, their names hidden, and the listener
// picks the better one. At the end the choices are compared with SI-SDR.
//
// It takes its sounds from the players of the page. A box
//   <div class="sepbook-blind" data-rounds="8" data-scores='{"player": {"system": dB, ...}}'>
// names players by their titles and says how each of their clips scored.
(() => {
  const el = (tag, props, ...kids) => {
    const e = Object.assign(document.createElement(tag), props);
    e.append(...kids);
    return e;
  };
  const pick = list => list[Math.floor(Math.random() * list.length)];

  const blind = box => {
    if (box.dataset.ready) return;
    box.dataset.ready = 1;
    box.dataset.lmSuppressShortcuts = true;
    const scores = JSON.parse(box.dataset.scores), rounds = +box.dataset.rounds;
    const choices = [], stage = el("div"), status = el("p");
    status.setAttribute("role", "status");
    box.replaceChildren(stage, status);

    // The clips of a player, {name: figure}, among them the target and the mixture.
    const clips = title => {
      const player = [...document.querySelectorAll(".sepbook-player")]
        .find(p => p.querySelector("strong")?.textContent === title);
      const figures = player ? [...player.querySelectorAll("figure")] : [];
      return Object.fromEntries(figures.map(f => [f.querySelector("figcaption").textContent, f]));
    };
    const copy = (figure, name) => {
      const audio = el("audio", {src: figure.querySelector("audio").src, preload: "metadata"});
      return el("figure", {}, el("figcaption", {textContent: name}), audio);
    };

    // Two systems that are 1 dB apart or more, of an excerpt where there are two.
    const pairs = Object.entries(scores).flatMap(([title, of]) => {
      const names = Object.keys(of).filter(name => clips(title)[name]);
      return names.flatMap((a, k) => names.slice(k + 1).map(b => ({title, a, b})))
        .filter(({a, b}) => Math.abs(of[a] - of[b]) >= 1);
    });
    if (!pairs.length) return (status.textContent = "The players above are not loaded.");
    let waiting = [];

    const ask = () => {
      if (choices.length === rounds) return finish();
      if (!waiting.length) waiting = pairs.slice();
      const pair = waiting.splice(waiting.indexOf(pick(waiting)), 1)[0];
      const [first, second] = Math.random() < 0.5 ? [pair.a, pair.b] : [pair.b, pair.a];
      const of = clips(pair.title);
      const player = el("div", {},
        el("strong", {textContent: `Round ${choices.length + 1} of ${rounds}`}), el("br"),
        copy(of[first], "A"), copy(of[second], "B"));
      for (const name of ["target", "mixture"]) if (of[name]) player.append(copy(of[name], name));
      const answer = (text, chosen, other) => {
        const button = el("button", {type: "button", textContent: text});
        button.onclick = () => {
          choices.push({...pair, chosen, other});
          ask();
        };
        return button;
      };
      const row = el("div", {className: "sepbook-player"}, el("div", {className: "bar"},
        "Which is closer to the target?",
        answer("A", first, second), answer("B", second, first), answer("I hear no difference")));
      stage.replaceChildren(player, row);
      window.sepbookPlayer(player);
      status.textContent = "Switch between A, B, the target and the mixture while they play.";
      if (choices.length) player.querySelector("[type=radio]").focus();
    };

    const finish = () => {
      const told = choices.filter(c => c.chosen);
      const gap = c => scores[c.title][c.chosen] - scores[c.title][c.other];
      const agree = list => list.filter(c => gap(c) > 0).length;
      const wide = told.filter(c => Math.abs(gap(c)) >= 3);
      const head = ["Excerpt", "You chose", "over", "SI-SDR"];
      const table = el("table", {},
        el("thead", {}, el("tr", {}, ...head.map(t => el("th", {textContent: t, scope: "col"})))),
        el("tbody", {}, ...choices.map(c => el("tr", {}, ...[
          c.title, c.chosen || "neither", c.other || `${c.a}, ${c.b}`,
          c.chosen ? `${gap(c) > 0 ? "+" : "\u2212"}${Math.abs(gap(c)).toFixed(1)} dB` : "",
        ].map(t => el("td", {textContent: t}))))));
      const again = el("button", {type: "button", textContent: "Once more"});
      again.onclick = () => {
        choices.length = 0;
        ask();
      };
      const scroll = el("div", {}, table);
      scroll.style.overflowX = "auto";
      scroll.tabIndex = 0;
      scroll.setAttribute("role", "region");
      scroll.ariaLabel = "Your choices";
      stage.replaceChildren(scroll,
        el("div", {className: "sepbook-player"}, el("div", {className: "bar"}, again)));
      status.textContent = `You and SI-SDR agree in ${agree(told)} of ${told.length} rounds`
        + ` in which you heard a difference; where the two are 3 dB apart or more, in`
        + ` ${agree(wide)} of ${wide.length}. Guessing would give half.`;
    };

    const start = el("button", {type: "button", textContent: `Start: ${rounds} rounds`});
    start.onclick = ask;
    stage.replaceChildren(
      el("div", {className: "sepbook-player"}, el("div", {className: "bar"}, start)));
  };

  const all = () => document.querySelectorAll(".sepbook-blind").forEach(blind);
  all();
  document.addEventListener("DOMContentLoaded", all);
})();
