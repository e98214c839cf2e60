"use strict";
// Figures as gomem writes them everywhere: the same as exporters/units.py.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

// A number of bytes with three digits, as gomem writes it everywhere.
function size(count) {
  if (count === null || count === undefined) return "?";
  let value = Math.abs(count);
  if (value < 1024) return `${count < 0 ? "-" : ""}${value.toFixed(0)} B`;
  let unit = 0;
  for (; value >= 1023.5 && unit < UNITS.length - 1; unit++) value /= 1024;
  return `${count < 0 ? "-" : ""}${threeDigits(value)} ${UNITS[unit]}`;
}

function number(count) {
  return count.toLocaleString("en-US");
}

function plural(count, noun) {
  return `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
}

function percent(part, whole) {
  if (!(whole > 0)) return "0%";
  const share = (100 * part) / whole;
  return share > 0 && share < 1 ? "<1%" : `${share.toFixed(0)}%`;
}

function seconds(value) {
  if (value < 1) return `${threeDigits(value * 1000)} ms`;
  if (value < 120) return `${threeDigits(value)} s`;
  const whole = Math.round(value);
  if (whole < 7200) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

function threeDigits(value) {
  return value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
}
