// Stands in for a chain's bootstrap: creates, upgrades and terminates vats, and passes messages to them, as the lab
// asks. Also talks to a device directly and lets go of what it holds, so that exports are dropped and retired.
import { E, Far } from '@endo/far';

export function buildRootObject(vatPowers) {
  const { D } = vatPowers;
  let admin;
  let vatAdminDevice;
  const vats = new Map(); // name -> { root, adminNode }
  const held = new Map();

  const rootOf = name => {
    const vat = vats.get(name);
    if (!vat) throw Error(`no vat ${name}`);
    return vat.root;
  };

  return Far('root', {
    async bootstrap(staticVats, devices) {
      vatAdminDevice = devices.vatAdmin;
      admin = await E(staticVats.vatAdmin).createVatAdminService(vatAdminDevice);
      for (const [name, root] of Object.entries(staticVats)) {
        vats.set(name, { root });
      }
    },

    // `computrons`: how many the vat's meter holds, or 'unlimited' (each delivery's are limited then too).
    async createVat(name, bundleName, { computrons, vatParameters = {} } = {}) {
      const bundleCap = await E(admin).getNamedBundleCap(bundleName);
      const options = { name, vatParameters };
      if (computrons === 'unlimited') options.meter = await E(admin).createUnlimitedMeter();
      else if (computrons) options.meter = await E(admin).createMeter(BigInt(computrons), 0n);
      const { root, adminNode } = await E(admin).createVat(bundleCap, options);
      E(adminNode)
        .done()
        .then(
          why => console.log(name, 'is done:', why),
          why => console.log(name, 'failed:', why),
        );
      vats.set(name, { root, adminNode });
    },

    async upgradeVat(name, bundleName) {
      const bundleCap = await E(admin).getNamedBundleCap(bundleName);
      return E(vats.get(name).adminNode).upgrade(bundleCap, { vatParameters: {} });
    },

    terminateVat(name, why) {
      return E(vats.get(name).adminNode).terminateWithFailure(Error(why));
    },

    messageVat(name, method, ...args) {
      return E(rootOf(name))[method](...args);
    },

    introduce(name, other) {
      return E(rootOf(name)).meet(rootOf(other));
    },

    // Calls that the kernel answers at once, from a device: one well, one with an error.
    async callDevice() {
      const bundleCap = await E(admin).getNamedBundleCap('counter');
      try {
        D(vatAdminDevice).getMeter('none such');
      } catch (error) {
        console.log('the device refused:', error);
      }
      return D(bundleCap).getBundleID();
    },

    async hold(key, name, method, ...args) {
      held.set(key, await E(rootOf(name))[method](...args));
    },

    // The one vat only recognizes the token that the other one made: it is told when the token is retired.
    async remember(name, maker) {
      const token = await E(rootOf(maker)).makeToken();
      return E(rootOf(name)).remember(token);
    },

    disavow(name, maker) {
      return E(rootOf(name)).disavow(rootOf(maker));
    },

    release() {
      held.clear();
    },
  });
}
