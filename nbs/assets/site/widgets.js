// What needs Python in a notebook, small enough for a browser: a mixing desk, and scissors for the
// spectrogram. Both take their sounds from the players of the page, by the names of the clips:
//   <div class="sepbook-desk" data-clips="vocals|drums" data-mix="mixture"></div>
//   <div class="sepbook-scissors" data-clip="mixture" data-rate="8000" data-frame="512"
//        data-box="0,6,0,4000" data-controls="box frame"></div>
(() => {
  const el = (tag, props, ...kids) => {
    const e = Object.assign(document.createElement(tag), props);
    e.append(...kids);
    return e;
  };
  let context, stop = () => {};
  const started = () => {
    context ||= new AudioContext();
    context.resume();
    return context;
  };
  const bytes = async name => {
    const figures = [...document.querySelectorAll("figure")];
    const figure = figures.find(f => f.querySelector("figcaption")?.textContent.trim() === name && f.querySelector("audio"));
    return (await fetch(figure.querySelector("audio").src)).arrayBuffer();
  };
  const slider = (label, min, max, step, value, unit, changed) => {
    const shown = el("output", {textContent: `${value} ${unit}`});
    const input = el("input", {type: "range", min, max, step, value, autocomplete: "off"});
    input.oninput = () => {
      shown.textContent = `${input.value} ${unit}`;
      changed(input);
    };
    return [el("label", {}, el("span", {textContent: label}), input, shown), input];
  };
  const unable = box => box.replaceChildren(el("p", {textContent: "The sounds of this page can't be read here."}));

  // Gains with which the clips add up to the mixture: the players have made all equally loud.
  const balance = (clips, mix) => {
    const n = clips.length, x = clips.map(c => c.getChannelData(0)), y = mix.getChannelData(0);
    const long = Math.min(y.length, ...x.map(c => c.length));
    const dot = (a, b) => { let s = 0; for (let i = 0; i < long; i += 3) s += a[i] * b[i]; return s; };
    const rows = x.map(a => [...x.map(b => dot(a, b)), dot(a, y)]);
    for (let k = 0; k < n; k++)
      for (let j = 0; j < n; j++)
        if (j !== k) {
          const f = rows[j][k] / rows[k][k];
          rows[j] = rows[j].map((v, i) => v - f * rows[k][i]);
        }
    return rows.map((row, k) => Math.abs(row[n] / row[k]));
  };

  const desk = box => {
    const names = box.dataset.clips.split("|");
    const button = el("button", {type: "button", textContent: "▶ Play"});
    let nodes, buffers, base, silent = () => {};
    const rows = names.map(name => {
      const change = () => set();
      const [gain, g] = slider("gain", -30, 12, 1, 0, "dB", change);
      const [place, p] = slider("place", -1, 1, 0.1, 0, "", change);
      const mute = el("input", {type: "checkbox", onchange: change}), solo = el("input", {type: "checkbox", onchange: change});
      const row = el("fieldset", {}, el("legend", {textContent: name}), gain, place,
        el("label", {}, mute, "mute"), el("label", {}, solo, "solo"));
      return {row, g, p, mute, solo};
    });
    const set = () => {
      const alone = rows.some(r => r.solo.checked);
      nodes?.forEach(([, gain, place], k) => {
        const r = rows[k], on = alone ? r.solo.checked : !r.mute.checked;
        gain.gain.setTargetAtTime(on * base[k] * 10 ** (r.g.value / 20), context.currentTime, 0.01);
        place.pan.setTargetAtTime(+r.p.value, context.currentTime, 0.01);
      });
    };
    const end = () => {
      nodes?.forEach(([source]) => source.stop());
      nodes = null;
      button.textContent = "▶ Play";
    };
    button.onclick = async () => {
      if (nodes) return end();
      stop();
      stop = end;
      const c = started();
      try {
        buffers ||= await Promise.all([...names, box.dataset.mix].map(async n => c.decodeAudioData(await bytes(n))));
      } catch { return unable(box); }
      const clips = buffers.slice(0, names.length);
      base ||= balance(clips, buffers.at(-1));
      nodes = clips.map(buffer => {
        const source = new AudioBufferSourceNode(c, {buffer, loop: true});
        const gain = new GainNode(c, {gain: 0}), place = new StereoPannerNode(c);
        source.connect(gain).connect(place).connect(c.destination);
        source.start();
        return [source, gain, place];
      });
      button.textContent = "❚❚ Pause";
      set();
    };
    box.replaceChildren(...rows.map(r => r.row), button);
  };

  // In place, length a power of two; `back` without the division.
  const fft = (re, im, back) => {
    const n = re.length;
    for (let i = 1, j = 0; i < n; i++) {
      let bit = n >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) {
        [re[i], re[j]] = [re[j], re[i]];
        [im[i], im[j]] = [im[j], im[i]];
      }
    }
    for (let size = 2; size <= n; size *= 2) {
      const turn = (back ? 2 : -2) * Math.PI / size, half = size / 2;
      for (let k = 0; k < half; k++) {
        const c = Math.cos(turn * k), s = Math.sin(turn * k);
        for (let a = k; a < n; a += size) {
          const b = a + half, x = re[b] * c - im[b] * s, y = re[b] * s + im[b] * c;
          re[b] = re[a] - x;
          im[b] = im[a] - y;
          re[a] += x;
          im[a] += y;
        }
      }
    }
  };
  const window_of = n => Float64Array.from({length: n}, (_, i) => 0.5 - 0.5 * Math.cos(2 * Math.PI * i / n));
  // Frames of a wave, half a frame of silence before it.
  const frames_of = (wave, n, hop) => {
    const w = window_of(n), found = [];
    for (let at = -n / 2; at < wave.length + n / 2 - hop; at += hop) {
      const re = Float64Array.from(w, (v, i) => v * (wave[at + i] || 0)), im = new Float64Array(n);
      fft(re, im);
      found.push([re, im]);
    }
    return found;
  };
  const wave_of = (frames, n, hop, length) => {
    const w = window_of(n), sum = new Float32Array(length), norm = new Float32Array(length);
    frames.forEach(([re, im], t) => {
      const r = re.slice(), i = im.slice();
      fft(r, i, true);
      for (let k = 0, at = t * hop - n / 2; k < n; k++, at++)
        if (at >= 0 && at < length) {
          sum[at] += w[k] * r[k] / n;
          norm[at] += w[k] * w[k];
        }
    });
    return sum.map((v, k) => (norm[k] > 1e-6 ? v / norm[k] : 0));
  };
  const MAGMA = [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];
  const color = x => {
    const at = Math.min(4.999, 5 * x), k = Math.floor(at);
    return MAGMA[k].map((v, c) => v + (at - k) * (MAGMA[k + 1][c] - v));
  };

  const scissors = async box => {
    const {clip, rate: given, controls = "box"} = box.dataset, rate = +given;
    let n = +box.dataset.frame || 512, wave, frames, hop;
    try {
      const buffer = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await bytes(clip));
      wave = buffer.getChannelData(0);
    } catch { return unable(box); }
    const long = wave.length / rate, top = +box.dataset.top || rate / 2;
    let [from, to, low, high] = box.dataset.box ? box.dataset.box.split(",").map(Number) : [0, long, 0, top];
    to = Math.min(to, long);
    const canvas = el("canvas", {width: 720, height: 240}), picture = canvas.getContext("2d");
    canvas.setAttribute("role", "img");
    const bar = el("div", {className: "bar"}), status = el("p", {className: "said"});
    const inside = (t, f) => {
      const s = t * hop / rate, hz = f * rate / n;
      return s >= from && s <= to && hz >= low && hz <= high;
    };
    let image, peak;
    const analyse = () => {
      hop = Math.max(n / 4, Math.ceil(wave.length / 3000 / 16) * 16);
      frames = frames_of(wave, n, hop);
      peak = 0;
      for (const [re, im] of frames) for (let f = 0; f <= n / 2; f++) peak = Math.max(peak, re[f] ** 2 + im[f] ** 2);
      image = picture.createImageData(canvas.width, canvas.height);
      for (let x = 0; x < canvas.width; x++) {
        const t = Math.min(frames.length - 1, Math.round(x / canvas.width * long * rate / hop)), [re, im] = frames[t];
        for (let y = 0; y < canvas.height; y++) {
          const f = Math.round((1 - y / canvas.height) * top * n / rate);
          const level = 10 * Math.log10((re[f] ** 2 + im[f] ** 2) / peak + 1e-9);
          image.data.set([...color(Math.max(0, 1 + level / 60)), 255], 4 * (y * canvas.width + x));
        }
      }
    };
    const draw = () => {
      picture.putImageData(image, 0, 0);
      const about = `Spectrogram of ${clip}, 0 to ${long.toFixed(1)} s, 0 to ${top / 1000} kHz, frames of ${(1000 * n / rate).toFixed(0)} ms`;
      canvas.ariaLabel = about;
      status.textContent = about + ".";
      if (!controls.includes("box")) return;
      const x = s => s / long * canvas.width, y = hz => (1 - Math.min(hz, top) / top) * canvas.height;
      picture.lineWidth = 2;
      picture.strokeStyle = "#fff";
      picture.strokeRect(x(from) + 1, y(high) + 1, Math.max(2, x(to) - x(from) - 2), Math.max(2, y(low) - y(high) - 2));
    };
    const play = what => {
      stop();
      const c = started();
      const cut = what === "all" ? wave : wave_of(frames.map(([re, im], t) => {
        const mask = f => +(inside(t, f <= n / 2 ? f : n - f) === (what === "in"));
        return [re.map((v, f) => v * mask(f)), im.map((v, f) => v * mask(f))];
      }), n, hop, wave.length);
      const buffer = new AudioBuffer({length: cut.length, sampleRate: rate});
      buffer.copyToChannel(Float32Array.from(cut), 0);
      const source = new AudioBufferSourceNode(c, {buffer});
      source.connect(c.destination);
      source.start();
      box.dataset.level = (10 * Math.log10(cut.reduce((s, v) => s + v * v, 0) / cut.length + 1e-20)).toFixed(1);
      stop = () => source.stop();
    };
    const inputs = [];
    if (controls.includes("frame")) {
      const sizes = Array.from({length: 9}, (_, k) => 2 ** (k + 6));
      const [label, input] = slider("frame", 0, sizes.length - 1, 1, sizes.indexOf(n), "", () => {
        n = sizes[input.value];
        label.querySelector("output").textContent = `${n} samples`;
        analyse();
        draw();
      });
      label.querySelector("output").textContent = `${n} samples`;
      inputs.push(label);
    }
    if (controls.includes("box")) {
      const edge = (label, max, step, value, unit, put) => {
        const [made] = slider(label, 0, max, step, value, unit, input => {
          put(+input.value);
          draw();
        });
        inputs.push(made);
      };
      if (controls.includes("time")) {
        edge("from", long.toFixed(2), 0.05, from, "s", v => (from = v));
        edge("to", long.toFixed(2), 0.05, to.toFixed(2), "s", v => (to = v));
      }
      edge("low", top, 50, low, "Hz", v => (low = v));
      edge("high", top, 50, high, "Hz", v => (high = v));
      const kinds = [["in", "▶ Only the box"], ["out", "▶ Without the box"], ["all", "▶ All"]];
      bar.append(...kinds.map(([kind, text]) => el("button", {type: "button", textContent: text, onclick: () => play(kind)})));
      bar.append(el("button", {type: "button", textContent: "■ Stop", onclick: () => stop()}));
    }
    analyse();
    draw();
    box.replaceChildren(canvas, status, el("div", {className: "sliders"}, ...inputs), bar);
  };

  document.querySelectorAll(".sepbook-desk").forEach(desk);
  // Nothing is computed before it is seen.
  const seen = new IntersectionObserver(all => all.forEach(e => {
    if (!e.isIntersecting) return;
    seen.unobserve(e.target);
    scissors(e.target);
  }), {rootMargin: "300px"});
  document.querySelectorAll(".sepbook-scissors").forEach(box => seen.observe(box));
})();
