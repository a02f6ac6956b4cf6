// The separation behind the page "Try it here", in a thread of its own: what
// `sepbook.separate` does (nbs/7_engine/94_streams.ipynb), step by step, around a network
// that ONNX Runtime computes. Audio is a list of channels, each a Float32Array.
//
// The functions above `Worker` need no browser, so a test can run them in Node.

// The level of a recording: the RMS over what is not silence. Windows of 0.1 s with less
// than a hundredth of the mean power are silent.
export function loudness(wave, rate) {
  const size = Math.max(1, Math.round(0.1 * rate)), time = wave[0].length, powers = [];
  const whole = Math.floor(time / size) * size || time;
  for (let begin = 0; begin < whole; begin += size) {
    const end = Math.min(begin + size, whole);
    let sum = 0;
    for (const channel of wave) for (let t = begin; t < end; t++) sum += channel[t] ** 2;
    powers.push(sum / (end - begin) / wave.length);
  }
  const mean = list => list.reduce((a, b) => a + b, 0) / list.length;
  if (!time) return 0;
  const gate = 0.01 * mean(powers);
  return Math.sqrt(mean(powers.filter(power => power >= gate)));
}

// What brings a recording to the level that a network wants; 1 for silence.
export function gainFor(rms, levelDb) {
  if (levelDb === null || rms === 0) return 1;
  return Math.min(Math.max(10 ** (levelDb / 20) / rms, 1e-12), 1e12);
}

// Where segments start: the last one ends where the recording ends.
export function segmentStarts(time, length, hop) {
  const starts = [];
  for (let start = 0; start + length <= time; start += hop) starts.push(start);
  const covered = starts.length ? starts.at(-1) + length : 0;
  if (covered < time) starts.push(Math.max(0, time - length));
  return starts;
}

// Add a segment to the weighted mean so far: a sample counts the more, the further from the
// borders of its segment it lies.
export function overlapAdd(mean, weight, segment, start) {
  for (let t = 0; t < segment.length; t++) {
    const own = Math.min(t + 1, segment.length - t);
    mean[start + t] += (segment[t] - mean[start + t]) * (own / (weight[start + t] + own));
  }
}

// The weights of a segment join those so far, once for all of its signals.
export function addWeights(weight, length, start) {
  for (let t = 0; t < length; t++) weight[start + t] += Math.min(t + 1, length - t);
}

// The modified Bessel function of order 0, for Kaiser's window.
function bessel(x) {
  let sum = 1, term = 1;
  for (let k = 1; term > 1e-12 * sum; k++) sum += term *= (x / 2 / k) ** 2;
  return sum;
}

// Another sample rate, by a sinc with Kaiser's window: flat to 0.913 of what both rates can
// hold, then falling to nothing at its end. As long as `sepbook.sound.resample` makes it.
export function resample(channel, from, to) {
  if (from === to) return channel;
  const gcd = (a, b) => (b ? gcd(b, a % b) : a), common = gcd(from, to);
  const up = to / common, down = from / common, lobes = 110, beta = 14;
  const cutoff = Math.min(1, to / from) * 0.955; // in parts of half the old rate
  const half = Math.ceil(lobes / cutoff);
  const phases = Array.from({length: up}, (_, phase) => {
    const taps = new Float64Array(2 * half);
    let sum = 0;
    for (let k = 0; k < 2 * half; k++) {
      const x = k - half + 1 - phase / up, inside = 1 - (x / half) ** 2;
      const sinc = x ? Math.sin(Math.PI * cutoff * x) / (Math.PI * x) : cutoff;
      sum += taps[k] = inside > 0 ? sinc * bessel(beta * Math.sqrt(inside)) : 0;
    }
    return taps.map(tap => tap / sum);
  });
  const out = new Float32Array(Math.ceil((channel.length * to) / from));
  for (let n = 0; n < out.length; n++) {
    const at = Math.floor((n * down) / up), taps = phases[(n * down) % up];
    const first = at - half + 1;
    const begin = Math.max(0, -first), end = Math.min(2 * half, channel.length - first);
    let sum = 0;
    for (let k = begin; k < end; k++) sum += taps[k] * channel[first + k];
    out[n] = sum;
  }
  return out;
}

const meanOf = waves => waves[0].map((_, t) => waves.reduce((sum, w) => sum + w[t], 0) / waves.length);

// Separate a recording. `network` maps channels to [source][channel]; `model` is an entry of
// models.json, whose numbers come from the package. Estimates are [source][channel].
export async function separate(network, model, wave, rate, progress = () => {}) {
  const time = wave[0].length, gain = gainFor(loudness(wave, rate), model.level_db);
  // Speakers are recorded by one channel; a stereo song keeps its channels.
  const given = model.speakers && wave.length > model.channels ? [meanOf(wave)] : wave;
  const low = given.map(channel => resample(channel, rate, model.sample_rate));
  const length = Math.min(model.length, low[0].length);
  const starts = segmentStarts(low[0].length, length, model.hop);
  const weight = new Float64Array(low[0].length);
  const means = model.sources.map(() => low.map(channel => new Float32Array(channel.length)));
  for (const [number, start] of starts.entries()) {
    progress(number, starts.length);
    const piece = low.map(channel => channel.slice(start, start + length));
    const silent = piece.every(channel => channel.every(x => x === 0));
    const loud = piece.map(channel => channel.map(x => x * gain));
    const ests = silent ? null : await asItTakes(network, model.channels, loud);
    for (const [j, source] of means.entries()) {
      for (const [c, mean] of source.entries()) {
        const est = silent ? new Float32Array(length) : ests[j][c].map(x => x / gain);
        if (!est.every(Number.isFinite)) throw Error(`the network returned NaN for ${model.sources[j]}`);
        overlapAdd(mean, weight, est, start);
      }
    }
    addWeights(weight, length, start);
  }
  progress(starts.length, starts.length);
  return means.map(source =>
    source.map(mean => resample(mean, model.sample_rate, rate).slice(0, time)));
}

// A mono network hears channels one by one, and a stereo one hears mono twice.
async function asItTakes(network, takes, piece) {
  if (piece.length < takes) {
    return (await network(Array(takes).fill(piece[0]))).map(source => [meanOf(source)]);
  }
  if (piece.length === takes) return network(piece);
  const each = [];
  for (const channel of piece) each.push(await network([channel]));
  return each[0].map((_, j) => each.map(ests => ests[j][0]));
}

// Worker: fetch the network once, then separate what the page sends.
const loaded = {};

async function load(model, base) {
  const ort = await import(new URL("ort/ort.wasm.bundle.min.mjs", base).href);
  ort.env.wasm.numThreads = 1; // more threads need headers that a plain server does not send
  ort.env.wasm.wasmPaths = {wasm: new URL("ort/ort-wasm-simd-threaded.wasm", base).href};
  ort.env.logLevel = "error";
  const bytes = await (await fetch(new URL(model.file, base))).arrayBuffer();
  const session = await ort.InferenceSession.create(new Uint8Array(bytes), {
    executionProviders: ["wasm"], enableCpuMemArena: false, enableMemPattern: false, logSeverityLevel: 3,
  });
  return async piece => {
    const time = piece[0].length, flat = new Float32Array(piece.length * time);
    piece.forEach((channel, c) => flat.set(channel, c * time));
    const {est} = await session.run({mix: new ort.Tensor("float32", flat, [1, piece.length, time])});
    const part = (j, c) => est.data.slice((j * piece.length + c) * time, (j * piece.length + c + 1) * time);
    const ests = model.sources.map((_, j) => piece.map((_, c) => part(j, c)));
    est.dispose?.();
    return ests;
  };
}

if (typeof WorkerGlobalScope !== "undefined") {
  self.onmessage = async ({data: {model, base, wave, rate}}) => {
    try {
      self.postMessage({state: "loading"});
      loaded[model.file] ||= await load(model, base);
      const began = performance.now();
      const tell = (done, all) => self.postMessage({state: "working", done, all});
      const ests = await separate(loaded[model.file], model, wave, rate, tell);
      const seconds = (performance.now() - began) / 1000;
      self.postMessage({state: "done", ests, seconds}, ests.flat().map(x => x.buffer));
    } catch (error) {
      self.postMessage({state: "failed", why: error.message || String(error)});
    }
  };
}
