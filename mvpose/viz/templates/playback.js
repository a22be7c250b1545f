(() => {
  "use strict";
  const source = document.getElementById("playback-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const MISSING = -32768;

  const unpack = (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Int16Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true));
  };
  const pointAt = (array, i) =>
    array[3 * i] === MISSING ? null : [array[3 * i] / 1000, array[3 * i + 1] / 1000, array[3 * i + 2] / 1000];

  const frusta = unpack(data.frusta);
  const centers = unpack(data.centers);
  const bodies = data.variants.map((variant) => ({ ...variant, xyz: unpack(variant.xyz) }));
  const views = [...document.querySelectorAll("#views canvas")];
  const scrub = document.getElementById("scrub");
  const clock = document.getElementById("clock");
  const button = document.getElementById("play");
  const speed = document.getElementById("speed");
  const home = startView();
  let turn = { ...home };
  let frame = 0;
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  let visible = true;
  let last = null;

  // The stretch of ground that people use decides the distance.
  function startView() {
    let reach = 1.2;
    let x = 0, y = 0, n = 0;
    for (const body of bodies.slice(-1)) {
      for (let i = 0; i < body.xyz.length / 3; i += 7) {
        const p = pointAt(body.xyz, i);
        if (p) { x += p[0]; y += p[1]; n += 1; }
      }
      x /= n || 1; y /= n || 1;
      const far = [];
      for (let i = 0; i < body.xyz.length / 3; i += 7) {
        const p = pointAt(body.xyz, i);
        if (p) far.push(Math.hypot(p[0] - x, p[1] - y));
      }
      far.sort((a, b) => a - b);
      reach = Math.max(reach, far[Math.floor(0.97 * far.length)] || 0);
    }
    return { azimuth: -0.7, elevation: 0.3, distance: 3.0 + 1.8 * reach, x, y };
  }

  function draw(canvas, body) {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const focal = 1.5 * Math.min(width, height);
    const ca = Math.cos(turn.azimuth), sa = Math.sin(turn.azimuth);
    const ce = Math.cos(turn.elevation), se = Math.sin(turn.elevation);
    const project = (p) => {
      const x = p[0] - turn.x, y = p[1] - turn.y, z = p[2] - 0.9;
      const right = ca * x + sa * y, ahead = -sa * x + ca * y;
      const depth = turn.distance + ce * ahead - se * z;
      if (depth < 0.2) return null;
      return [width / 2 + (focal * right) / depth, height / 2 - (focal * (se * ahead + ce * z)) / depth, depth];
    };
    const stroke = (a, b, colour, thickness) => {
      const p = a && project(a), q = b && project(b);
      if (!p || !q) return;
      pen.strokeStyle = colour;
      pen.lineWidth = thickness;
      pen.beginPath();
      pen.moveTo(p[0], p[1]);
      pen.lineTo(q[0], q[1]);
      pen.stroke();
    };
    const style = getComputedStyle(document.documentElement);
    const line = style.getPropertyValue("--line"), soft = style.getPropertyValue("--soft");
    const cx = Math.round(turn.x), cy = Math.round(turn.y);
    for (let i = -6; i <= 6; i++) {
      for (let j = -6; j < 6; j++) {
        stroke([cx + i, cy + j, 0], [cx + i, cy + j + 1, 0], line, 1);
        stroke([cx + j, cy + i, 0], [cx + j + 1, cy + i, 0], line, 1);
      }
    }
    // Cameras between the viewer and the people would only be in the way.
    const behind = (i) => {
      const p = pointAt(centers, i) && project(pointAt(centers, i));
      return p && p[2] > 0.75 * turn.distance ? p : null;
    };
    for (let i = 0; i < frusta.length / 6; i++) {
      if (behind(Math.floor(i / 8))) stroke(pointAt(frusta, 2 * i), pointAt(frusta, 2 * i + 1), soft, 1);
    }
    pen.fillStyle = soft;
    pen.font = "11px system-ui, sans-serif";
    pen.textAlign = "center";
    data.cameras.forEach((name, i) => {
      const p = behind(i);
      if (p) pen.fillText(name, p[0], p[1] - 8);
    });
    const limbs = [];
    for (let person = 0; person < body.people; person++) {
      const first = (frame * body.people + person) * body.joints;
      body.limbs.forEach(([a, b], i) => {
        const p = pointAt(body.xyz, first + a), q = pointAt(body.xyz, first + b);
        if (!p || !q) return;
        stroke([p[0], p[1], 0], [q[0], q[1], 0], "rgba(110,120,130,.22)", 5);
        limbs.push([p, q, body.colours[person * body.limbs.length + i]]);
      });
    }
    pen.lineCap = "round";
    const depthOf = ([p, q]) => -(project(p)?.[2] ?? 0) - (project(q)?.[2] ?? 0);
    limbs.sort((a, b) => depthOf(a) - depthOf(b));
    for (const [p, q, colour] of limbs) {
      const away = project(p)?.[2] ?? turn.distance;
      stroke(p, q, colour, Math.max(2, (0.055 * focal) / away));
    }
  }

  function show() {
    views.forEach((canvas, i) => draw(canvas, bodies[i]));
    scrub.value = frame;
    const seconds = (data.start_s + frame / data.rate).toFixed(2) + " s";
    clock.value = seconds;
    scrub.setAttribute("aria-valuetext", seconds);
  }

  function setPlaying(now) {
    playing = now;
    last = null;
    button.textContent = playing ? "Pause" : "Play";
    if (playing) requestAnimationFrame(tick);
  }

  let position = 0;
  function tick(now) {
    if (!playing) return;
    if (last !== null && visible) {
      position = (position + ((now - last) / 1000) * data.rate * Number(speed.value)) % data.frames;
      if (Math.floor(position) !== frame) {
        frame = Math.floor(position);
        show();
      }
    }
    last = now;
    requestAnimationFrame(tick);
  }

  button.addEventListener("click", () => setPlaying(!playing));
  scrub.addEventListener("input", () => {
    setPlaying(false);
    position = frame = Number(scrub.value);
    show();
  });
  for (const canvas of views) {
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (!event.buttons) return;
      turn.azimuth -= 0.008 * event.movementX;
      turn.elevation = Math.min(1.5, Math.max(-0.1, turn.elevation + 0.008 * event.movementY));
      show();
    });
    canvas.addEventListener("dblclick", () => { turn = { ...home }; show(); });
  }
  new IntersectionObserver((entries) => { visible = entries[0].isIntersecting; }).observe(views[0]);
  addEventListener("resize", show);
  show();
  setPlaying(playing);
})();
