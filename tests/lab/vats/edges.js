// Values at the edges: every kind of Unicode, numbers that print in odd ways (-0 is among them, though it becomes 0 in
// the kernel's data), and messages of more than 1 MB.
import { E, Far } from '@endo/far';

const STRINGS = harden([
  'astral 😀 𝒳',
  'lone high \ud83d end',
  'lone low \ude00 end',
  'swapped \ude00\ud83d',
  'separators \u2028 \u2029',
  'nul \u0000 and \u0001 and \u007f',
  'é and e\u0301 and \ufeff and \ufffd',
  'quotes " \\ / and \t\r\n',
]);
const NUMBERS = harden([
  -0,
  0,
  NaN,
  Infinity,
  -Infinity,
  2 ** 53,
  2 ** 53 - 1,
  -(2 ** 53),
  1e21,
  1e-7,
  5e-324,
  0.1 + 0.2,
]);

export function buildRootObject(_vatPowers, _parameters, baggage) {
  let other;
  return Far('root', {
    meet(root) {
      other = root;
    },
    echo(value) {
      return value;
    },
    async strings() {
      for (const [at, text] of STRINGS.entries()) {
        const key = `text ${at} ${text}`;
        if (!baggage.has(key)) baggage.init(key, text);
      }
      const back = await E(other).echo(STRINGS);
      return back.every((text, at) => text === STRINGS[at]);
    },
    async numbers() {
      const back = await E(other).echo(NUMBERS);
      return harden([back, NUMBERS, 12345678901234567890n]);
    },
    async big(length) {
      const text = 'x😀'.repeat(length / 3);
      const back = await E(other).echo(text);
      return back.length;
    },
  });
}
