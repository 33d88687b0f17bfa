// One of everything that a heap can hold, for images that are made on purpose. Each thing hangs on `lab`, so that a change
// to it has a place. Runs in a bare engine as well as after lockdown, where `var` would end with the evaluation.
globalThis.lab = {};

lab.plain = { first: 1, second: 'two', third: { deep: [true, null, undefined] } };
lab.frozenLater = { x: 1 };
lab.numbers = { whole: 7, fraction: 0.5, zero: 0, large: 2 ** 40, negative: -3, notANumber: NaN, infinite: Infinity };
lab.big = { small: 12n, long: 2n ** 200n, negative: -(2n ** 70n) };
lab.texts = { plain: 'abc', astral: 'a😀b', nul: 'a\0b', empty: '', long: 'lorem ipsum '.repeat(200) };

lab.makeAccount = start => {
  let balance = start;
  const history = [];
  return {
    deposit(amount) {
      balance += amount;
      history.push(amount);
      return balance;
    },
    read: () => balance,
  };
};
lab.account = lab.makeAccount(100);
lab.account.deposit(5);
lab.other = lab.makeAccount(7);

class Base {
  #secret = 1;
  static count = 0;
  constructor(name) {
    this.name = name;
    Base.count += 1;
  }
  reveal() {
    return this.#secret;
  }
  hide(value) {
    this.#secret = value;
  }
  get loud() {
    return `${this.name}!`;
  }
  set loud(value) {
    this.name = value;
  }
}
class Derived extends Base {
  #more = [1, 2];
  grow(item) {
    this.#more.push(item);
  }
}
lab.Base = Base;
lab.base = new Base('base');
lab.derived = new Derived('derived');

lab.array = Array.from({ length: 1000 }, (_, i) => i * 3);
lab.objects = Array.from({ length: 20 }, (_, i) => ({ id: i, label: `object ${i}` }));
lab.sparse = [];
lab.sparse[3] = 'three';
lab.sparse[300] = 'three hundred';
lab.nested = [[1, 2], [3, [4, 5]]];
lab.indexed = { 0: 'zero', 5: 'five', name: 'indexed' };

lab.map = new Map([['a', 1], ['b', { two: 2 }], [3, 'three']]);
lab.mapByObject = new Map([[lab.plain, 'plain'], [lab.account, 'account']]);
lab.set = new Set(['x', 'y', lab.base]);
lab.weakMap = new WeakMap([[lab.plain, { hidden: 1 }], [lab.base, 'base']]);
lab.weakSet = new WeakSet([lab.plain, lab.derived]);
lab.weakRef = new WeakRef(lab.account);
lab.registry = new FinalizationRegistry(held => held);
lab.registry.register(lab.plain, 'held for plain');
lab.registry.register(lab.base, 'held for base', lab.base);

lab.symbols = { own: Symbol('own'), other: Symbol('own'), registered: Symbol.for('lab.registered'), bare: Symbol() };
lab.bySymbol = { [lab.symbols.own]: 1, [lab.symbols.registered]: 2, [Symbol.iterator]: null };

lab.bytes = new Uint8Array([1, 2, 3, 4, 5]);
lab.floats = new Float64Array([0.5, -0, 1 / 3]);
lab.view = new DataView(new ArrayBuffer(16), 4, 8);
lab.date = new Date(86400000);
lab.boxed = [Object(1), Object('boxed'), Object(true), Object(10n), Object(lab.symbols.own)];

lab.regexp = /(?<year>\d{4})-(?<month>\d\d)/g;
lab.plainRegexp = /a+b/i;

lab.generator = (function* counting() {
  let count = 10;
  for (;;) {
    const step = yield count;
    count += step || 1;
  }
})();
lab.generator.next();
lab.generator.next(5);

lab.settle = null;
lab.pending = new Promise((resolve, reject) => {
  lab.settle = { resolve, reject };
});
lab.resolved = Promise.resolve({ answer: 42 });
lab.rejected = Promise.reject(Error('rejected'));
lab.rejected.catch(() => {});
lab.asyncResult = (async () => {
  const local = { waiting: 'for pending' };
  const value = await lab.pending;
  return [local, value];
})();
lab.chained = lab.pending.then(value => value + 1);

lab.mapIterator = lab.map.entries();
lab.mapIterator.next();
lab.setIterator = lab.set.values();
lab.arrayIterator = lab.array[Symbol.iterator]();
lab.arrayIterator.next();

lab.proxyTarget = { through: 1 };
lab.proxy = new Proxy(lab.proxyTarget, { get: (target, key) => target[key] });
lab.bound = lab.makeAccount.bind(null, 9);
lab.error = new TypeError('kept');
lab.accessors = {
  get both() {
    return 1;
  },
  set both(value) {
    lab.plain.first = value;
  },
};
lab.tagged = strings => strings;
lab.useTag = () => lab.tagged`one ${1} two`;
lab.template = lab.useTag();
lab.cycle = { me: null };
lab.cycle.me = lab.cycle;
lab.shared = { one: lab.plain.third, two: lab.plain.third };
lab.twins = { one: {}, two: {} };
lab.chain = null;
for (let i = 0; i < 50; i += 1) lab.chain = { i, next: lab.chain };
lab.functionWithProperty = function named(a, b) {
  return a + b;
};
lab.functionWithProperty.extra = 'extra';
(function sloppy() {
  lab.arguments = arguments;
})(1, 2, 3);
let lexical = { kept: 'outside of any function' };
lab.readLexical = () => lexical;
